"""Install four subsets of the built wheels into fresh environments and run each: what a user does who wants a part."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

#: RAISE without its learned detectors.
LEXICAL = """
extends = "default"
[[detectors]]
name = "harm"
enabled = false
[[detectors]]
name = "toxicity"
enabled = false
[[detectors]]
name = "toxicity-answer"
enabled = false
"""
_CHECK = ("raise", "check", "--text", "13812345678", "--phase", "output", "--json")
_LEXICAL = ("fulmen-raise-pii", "fulmen-raise-secrets", "fulmen-raise-attack")

SUBSETS = {
    _LEXICAL: (*_CHECK, "--policy", "lexical.toml"),
    ("fulmen[raise]",): _CHECK,
    ("fulmen-backend-onnxruntime[cpu]",): ("backends", "--json"),
    ("fulmen-core[model]",): ("model", "show", "--preset", "lightning", "--context", "65536", "--json"),
}


def main(wheelhouse: Path, constraints: Path) -> None:
    for requirements, command in SUBSETS.items():
        with tempfile.TemporaryDirectory() as folder:
            venv.create(folder, with_pip=True)
            binaries = Path(folder) / "bin"
            subprocess.run(
                [binaries / "pip", "install", "-q", "--find-links", wheelhouse, "-c", constraints, *requirements],
                check=True,
            )
            (Path(folder) / "lexical.toml").write_text(LEXICAL, "utf-8")
            fulmen = [binaries / "fulmen", *command]
            result = subprocess.run(fulmen, cwd=folder, check=True, text=True, stdout=subprocess.PIPE)
            json.loads(result.stdout)
            print(f"{', '.join(requirements)}: fulmen {' '.join(command)} -> exit 0, valid JSON")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
