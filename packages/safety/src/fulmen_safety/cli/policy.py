"""`fulmen raise policy show` and `lint`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.cli import arguments, context, output
from fulmen_safety.lint import overview, remarks
from fulmen_safety.panel import Panel
from fulmen_safety.policy import Policy, default_source, load_policy


def run(argv: Sequence[str]) -> int:
    """Show a policy, or load it with its detectors and remark on what may not be meant.

    Raises:
        UserError: wrong arguments, a faulty policy, a detector that cannot be used.
    """
    parser = arguments.parser("fulmen raise policy", "show or lint a safety policy", recipe=False)
    parser.add_argument("verb", choices=("show", "lint"))
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: the policy in the package")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the same as FILE")
    parser.add_argument("--toml", action="store_true", help="show: print the file itself, to start one's own from")
    options = parser.parse_args(argv)
    path: Path | None = options.file or options.policy
    policy = load_policy(path)
    if options.verb == "lint":
        return _lint(policy, json=options.json)
    if options.toml:
        print(path.read_text("utf-8") if path else default_source(), end="")
    elif options.json:
        output.print_json({"policy_version": policy.version, **policy.file.model_dump(mode="json", exclude_none=True)})
    else:
        _show(policy)
    return 0


def _show(policy: Policy) -> None:
    print(f"{policy.file.name}, version {policy.version}, taxonomy {policy.file.taxonomy}")
    detectors = [
        (
            entry.name,
            ", ".join(entry.phases) if entry.phases is not None else "all it offers",
            f"{entry.deadline_ms:g} ms",
            entry.on_error,
        )
        for entry in policy.file.detectors
    ]
    output.print_table(("detector", "phases", "deadline", "on error"), detectors, empty="no detectors")
    columns = ("category", "threshold", "RAISE-1 corpus", "RAISE-2 reward", "RAISE-3 input", "RAISE-4 output")
    output.print_table(columns, overview(policy), empty="no categories")


def _lint(policy: Policy, *, json: bool) -> int:
    found = remarks(policy, Panel(policy, context.registry()))
    if json:
        output.print_json({"policy_version": policy.version, "remarks": found})
        return 0
    for remark in found:
        print(f"remark: {remark}")
    print(f"{policy.where}: valid, version {policy.version}, {len(found)} remark{'s' * (len(found) != 1)}")
    return 0
