"""`fulmen backends`: probes every backend and says which can be used here, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.cli import arguments, context
from fulmen_core.cli.plugins import show


def run(argv: Sequence[str]) -> int:
    """List the backends by falling priority; ``--json`` prints a list of objects."""
    parser = arguments.parser("fulmen backends", "probe the backends and say which can be used", recipe=False)
    args = parser.parse_args(argv)
    show(
        context.registry().backend_records(),
        as_json=args.json,
        empty="No backend is installed: pip install fulmen-backend-cpu",
    )
    return 0
