"""`fulmen plugins new KIND NAME`: a distribution that works, with tests that pass, to be made one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.cli import arguments
from fulmen_core.cli.output import print_json
from fulmen_core.errors import UserError
from fulmen_core.skeletons.writing import KINDS, Skeleton
from fulmen_core.suggestions import remedy_for_unknown


def run(argv: Sequence[str]) -> int:
    """Write the skeleton and say what to do next; ``--json`` prints what was written."""
    parser = arguments.parser("fulmen plugins new", "write a plugin that works and is tested", recipe=False)
    parser.add_argument("kind", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("name", metavar="NAME", help="of what it brings: lower-case letters, digits, single hyphens")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder; default: the distribution's name")
    args = parser.parse_args(argv)
    if args.kind not in KINDS:
        raise UserError(
            f"there is no skeleton of a {args.kind!r}", remedy=remedy_for_unknown(args.kind, KINDS, kind="kinds")
        )
    skeleton = Skeleton(args.kind, args.name)
    out = args.out or Path(skeleton.distribution)
    skeleton.write(out)
    files = list(skeleton.files())
    if args.json:
        written = {"distribution": skeleton.distribution, "package": skeleton.package}
        print_json({"kind": skeleton.kind, "name": skeleton.name, **written, "directory": str(out), "files": files})
    else:
        print(f"{out}: {skeleton.distribution}, {len(files)} files")
        print(f"next: cd {out} && pip install -e '.[test]' && pytest")
    return 0
