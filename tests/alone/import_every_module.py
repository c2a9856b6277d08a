"""Import every module of one installed distribution; a module may miss only what an extra of that distribution brings.

Run in an environment that holds the distribution and its declared dependencies, nothing else. Exit code 1 names each
module that imports something undeclared.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from importlib.metadata import packages_distributions, requires


def extra_roots(distribution: str) -> set[str]:
    """Normalised names of the distributions that only extras bring, followed one level into Fulmen's own extras."""
    names: set[str] = set()
    for requirement in requires(distribution) or []:
        name = re.split(r"[\s\[<>=~!;(]", requirement, maxsplit=1)[0]
        if "extra ==" in requirement:
            names.add(name.lower().replace("_", "-"))
            inner = re.search(r"\[(.+?)\]", requirement)
            if name == "fulmen-core" and inner and distribution != "fulmen-core":
                names |= extra_roots("fulmen-core")
    return names


def main(distribution: str) -> int:
    package = distribution.replace("-", "_")
    if distribution == "fulmen":
        print("fulmen: a meta distribution, no modules")
        return 0
    optional = extra_roots(distribution)
    faults, skipped, imported = [], [], 0
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
            imported += 1
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            known = {missing.lower().replace("_", "-")} | {n.lower() for n in packages_distributions().get(missing, [])}
            (skipped if known & optional else faults).append(f"{module.name}: needs {missing}")
    print(f"{distribution}: {imported} modules import; {len(skipped)} wait for an extra")
    for fault in faults:
        print(f"  undeclared: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
