"""`fulmen raise policy show`, `lint` and `schema`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.cli import arguments, context, output
from fulmen_safety.cli.policy_option import add_policy, given_policy
from fulmen_safety.inheritance import PROFILES, profile_source
from fulmen_safety.lint import overview, remarks
from fulmen_safety.panel import Panel
from fulmen_safety.policy import Policy, load_policy
from fulmen_safety.schema import policy_schema


def run(argv: Sequence[str]) -> int:
    """Show a policy, load it with its detectors and remark on what may not be meant, or print the schema of policies.

    Raises:
        UserError: wrong arguments, a faulty policy, a detector that cannot be used.
    """
    parser = arguments.parser("fulmen raise policy", "show or lint a safety policy; its JSON schema", recipe=False)
    parser.add_argument("verb", choices=("show", "lint", "schema"))
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the same as --policy")
    add_policy(parser)
    parser.add_argument("--toml", action="store_true", help="show: print the file itself, to start one's own from")
    parser.add_argument("--exit-code", action="store_true", help="lint: exit with 1 if there is a remark")
    options = parser.parse_args(argv)
    if options.verb == "schema":
        output.print_json(policy_schema())
        return 0
    path = given_policy(options, options.file)
    policy = load_policy(path)
    if options.verb == "lint":
        return _lint(policy, json=options.json, fail=options.exit_code)
    if options.toml:
        print(_source(path), end="")
    elif options.json:
        output.print_json({"policy_version": policy.version, **policy.file.model_dump(mode="json", exclude_none=True)})
    else:
        _show(policy)
    return 0


def _source(path: Path | None) -> str:
    name = "default" if path is None else str(path)
    return profile_source(name) if name in PROFILES and not Path(name).is_file() else Path(name).read_text("utf-8")


def _show(policy: Policy) -> None:
    print(f"{policy.file.name}, version {policy.version}, taxonomy {policy.file.taxonomy}")
    detectors = [
        (
            entry.name,
            ", ".join(entry.phases) if entry.phases is not None else "all it offers",
            f"{entry.deadline_ms:g} ms",
            entry.on_error,
        )
        for entry in policy.detectors
    ]
    output.print_table(("detector", "phases", "deadline", "on error"), detectors, empty="no detectors")
    columns = ("category", "threshold", "RAISE-1 corpus", "RAISE-2 reward", "RAISE-3 input", "RAISE-4 output")
    output.print_table(columns, overview(policy), empty="no categories")


def _lint(policy: Policy, *, json: bool, fail: bool) -> int:
    found = remarks(policy, Panel(policy, context.registry()))
    if json:
        told = [f"{remark.kind}: {remark.text}" for remark in found]
        output.print_json({"policy_version": policy.version, "remarks": told})
    else:
        for remark in found:
            print(f"{remark.kind}: {remark.text}")
        print(f"{policy.where}: valid, version {policy.version}, {len(found)} remark{'s' * (len(found) != 1)}")
    return int(fail and bool(found))
