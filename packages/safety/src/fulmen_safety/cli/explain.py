"""`fulmen raise explain`: every detector's verdict on one text, and what each component would do and why."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.panel import Panel as Box
from rich.table import Table
from rich.text import Text

from fulmen_core.cli import arguments, context, output
from fulmen_core.guard import Finding
from fulmen_safety.cli.policy_option import add_policy, given_policy
from fulmen_safety.cli.text_argument import given_text
from fulmen_safety.explanation import COMPONENTS, Explanation, Outcome, as_json, explain, merged
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.panel import Examination
from fulmen_safety.policy import load_policy

#: How an action looks: the milder the cooler.
_STYLES = {
    **dict.fromkeys(("keep", "allow", "0"), "green"),
    **dict.fromkeys(("redact", "rewrite"), "yellow"),
    **dict.fromkeys(("drop", "block", "replace", "stop", "quarantine", "fail"), "bold red"),
}
#: Categories with a high score that are shown of a detector that scores every text.
_SCORES_SHOWN = 3
#: Of a text that goes on, characters that are shown.
_LONGEST = 400


def run(argv: Sequence[str]) -> int:
    """Explain a text. Nothing is recorded in the policy's audit log. The exit code is 0 whatever is found.

    Raises:
        UserError: wrong arguments, text that is not UTF-8, a faulty policy, a detector that cannot be used.
    """
    parser = arguments.parser("fulmen raise explain", "what every detector and every component says", recipe=False)
    parser.add_argument("text", help="the text; - reads standard input")
    parser.add_argument("--phase", action="append", choices=tuple(COMPONENTS), help="only this one; may be repeated")
    add_policy(parser)
    options = parser.parse_args(argv)
    text = given_text(options.text, "the text")
    guard = RaiseGuard(load_policy(given_policy(options)), context.registry(), recorded=False)
    explanation = explain(guard, text, options.phase or tuple(COMPONENTS))
    if options.json:
        output.print_json(as_json(guard, explanation))
    else:
        terminal = sys.stdout.isatty()
        Console(width=None if terminal else 120, highlight=False).print(_picture(guard, explanation))
    return 0


def _picture(guard: RaiseGuard, explanation: Explanation) -> RenderableType:
    parts: list[RenderableType] = [_marked(guard, explanation)]
    if len(explanation.views) > 1:
        parts.append(_views(explanation))
    parts += [_detectors(guard, explanation), _components(explanation.outcomes)]
    title = f"RAISE  {guard.policy.file.name}  {guard.policy_version}"
    return Box(Group(*parts), title=Text(title, "bold"), title_align="left", box=ROUNDED, padding=(1, 2))


def _marked(guard: RaiseGuard, explanation: Explanation) -> Text:
    """The text, with what was found in it underlined, in red where something would be ended by it."""
    shown = Text(explanation.text or "(nothing)", "default")
    for one in explanation.examinations:
        for finding, _ in merged(one.seen):
            counts = guard.policy.counts(finding, explanation.text)
            strict = {guard.policy.action(finding, phase) for phase in ("input", "output")} & {
                "block",
                "replace",
                "stop",
            }
            style = "underline" if not counts else "underline bold red" if strict else "underline bold yellow"
            shown.stylize(style, finding.start, finding.end)
    return _plain(shown)


def _views(explanation: Explanation) -> Table:
    table = _table("seen as", "")
    for view in explanation.views[1:]:
        table.add_row(Text(view.name, "cyan"), _plain(Text(_short(view.text))))
    return table


def _detectors(guard: RaiseGuard, explanation: Explanation) -> Table:
    table = _table("detector", "verdict", "category", "score", "span", "views", "ms")
    for one in explanation.examinations:
        time = f"{one.milliseconds:.2f}"
        if one.failure is not None:
            closed = "fails closed" if one.failure.closed else "fails open"
            reason = Text(one.failure.reason.partition("failed: ")[2], "red")
            table.add_row(one.detector, Text(closed, "bold red"), reason, "", "", "", time)
            continue
        rows = [_finding_row(guard, explanation.text, finding, views) for finding, views in merged(one.seen)]
        rows = rows or [(Text("nothing", "green"), _opinion(one), Text(""), Text(""), Text(""))]
        for number, row in enumerate(rows):
            table.add_row(Text("" if number else one.detector, "bold"), *row, "" if number else time)
    return table


def _finding_row(guard: RaiseGuard, text: str, finding: Finding, views: Sequence[str]) -> tuple[Text, ...]:
    threshold = guard.policy.threshold(finding, text)
    counts = finding.score >= threshold
    verdict = Text("found", "bold red") if counts else Text("below", "dim")
    what = Text(finding.category)
    if finding.label:
        what.append(f" {finding.label}", "dim")
    score = Text(f"{finding.score:.2f} ", "bold" if counts else "dim") + Text(f"of {threshold:g}", "dim")
    return verdict, what, score, Text(f"{finding.start}:{finding.end}"), Text(" ".join(dict.fromkeys(views)), "cyan")


def _opinion(one: Examination) -> Text:
    """What a detector that found nothing thinks of the text all the same."""
    if not one.scores:
        return Text("")
    top = sorted(one.scores.items(), key=lambda item: -item[1])[:_SCORES_SHOWN]
    return Text(", ".join(f"{code} {score:.2f}" for code, score in top), "dim")


def _components(outcomes: Sequence[Outcome]) -> Table:
    table = _table("component", "would", "because", "what goes on")
    for one in outcomes:
        name = Text(COMPONENTS[one.phase], "bold") + Text(f" {one.phase}", "dim")
        action = Text(one.action, _STYLES.get(one.action, "yellow"))
        gone = one.action in ("drop", "fail") or one.phase == "reward"
        table.add_row(name, action, Text(one.why), _plain(Text("" if gone else _short(one.text), "dim")))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim", expand=False)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column == "ms" else "left")
    return table


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


def _plain(text: Text) -> Text:
    """The text with control characters spelled out, styles kept: a stranger's text must not steer a terminal."""
    parts = [
        char if char.plain.isprintable() or char.plain == "\n" else Text(_spelled(char.plain), "reverse")
        for char in text.divide(range(1, len(text)))
    ]
    return Text("").join(parts)


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode()
