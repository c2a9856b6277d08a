"""What a policy says that its author may not have meant. Errors stop a policy from loading; these are remarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fulmen_safety.detector import PHASES, Bounded, StreamingDetector
from fulmen_safety.panel import Panel
from fulmen_safety.policy import DEFAULT, STRICTNESS, CategoryPolicy, Policy
from fulmen_safety.policy_file import DetectorEntry
from fulmen_safety.taxonomy import taxonomy

#: Roles that conversations have; a trusted role outside of them trusts nobody.
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
#: Deadlines outside of these are never kept, or never enforced: the server gives up on a guard's process after 30 s.
_SHORTEST_MS, _LONGEST_MS = 1.0, 25_000.0


class Remark(NamedTuple):
    """One oddity. `kind` groups them: ``dead`` (without effect), ``contradiction``, ``exposure`` (something may pass or
    be kept), ``language``, ``delay``."""

    kind: str
    text: str


@dataclass(frozen=True)
class _Reported:
    """Who reports what, where: the detectors of a policy, by phase and category."""

    by_phase: dict[str, set[str]]

    def anywhere(self, code: str) -> bool:
        return any(self.within(phase, code) for phase in PHASES)

    def within(self, phase: str, code: str) -> bool:
        return bool({code, "*"} & self.by_phase[phase])


def remarks(policy: Policy, panel: Panel) -> list[Remark]:
    """Return a remark for each oddity, in no order of weight; none for a policy that says nothing in vain."""
    reported = _reported(panel)
    rules = {code: one for code, one in policy.file.categories.items() if code != DEFAULT}
    found = [*_undetected(rules, reported), *_unheeded(policy, panel, reported), *_unreachable(policy, panel)]
    for code, one in rules.items():
        found += _of_category(f"[categories.{code}]", code, one, reported)
    for entry in policy.detectors:
        for code, one in ((code, policy.of_detectors[entry.name, code]) for code in entry.rules):
            found += _contradictions(f"[categories.{code}] of the detector {entry.name!r}", code, one, reported)
        found += _of_detector(entry)
    return [*found, *_whole_answers(panel), *_of_the_whole(policy)]


def _reported(panel: Panel) -> _Reported:
    by_phase: dict[str, set[str]] = {phase: set() for phase in PHASES}
    for seat in panel.seats:
        # what the detector of terms reports is in its settings: it may report anything, and does not
        own = (
            seat.detector.highest_scores()
            if isinstance(seat.detector, Bounded) and "*" in seat.info.categories
            else None
        )
        for phase in seat.phases:
            by_phase[phase] |= set(seat.info.categories if own is None else own)
    return _Reported(by_phase)


def _undetected(rules: Iterable[str], reported: _Reported) -> Iterator[Remark]:
    if undetected := [code for code in rules if not reported.anywhere(code)]:
        yield Remark("dead", f"no detector of this policy reports {', '.join(undetected)}: these rules have no effect")


def _unheeded(policy: Policy, panel: Panel, reported: _Reported) -> Iterator[Remark]:
    """Detectors whose findings change nothing, in any phase that they judge."""
    for seat in panel.seats:
        codes = [code for code in taxonomy().titles if {code, "*"} & set(seat.info.categories)]
        rules = [policy.of_detectors.get((seat.entry.name, code)) or policy.category(code) for code in codes]
        if not any(_acts(one, phase) for one in rules for phase in seat.phases):
            what = f"the detector {seat.entry.name!r} is asked in vain: nothing is done about what it reports"
            yield Remark("dead", what)
    listed = [
        code
        for code in taxonomy().titles
        if code not in policy.file.categories and reported.anywhere(code) and not _acts_anywhere(policy.category(code))
    ]
    if listed and DEFAULT in policy.file.categories:
        what = f"{', '.join(listed)} follow [categories.default], which does nothing about what is reported of them"
        yield Remark("dead", what)


def _unreachable(policy: Policy, panel: Panel) -> Iterator[Remark]:
    """Thresholds above what every detector of the category can give."""
    for code in taxonomy().titles:
        heights = {}
        for seat in panel.seats:
            if {code, "*"} & set(seat.info.categories):
                own = seat.detector.highest_scores() if isinstance(seat.detector, Bounded) else {}
                if "*" not in seat.info.categories or code in own:
                    rules = policy.of_detectors.get((seat.entry.name, code)) or policy.category(code)
                    heights[seat.entry.name] = (own.get(code, 1.0), rules)
        for language in ("", "en", "zh"):
            over = [
                (name, height, threshold)
                for name, (height, rules) in heights.items()
                if (threshold := _threshold(rules, language)) is not None and threshold > height
            ]
            if over and len(over) == len(heights):
                name, height, threshold = max(over, key=lambda one: one[1])
                where = f"[categories.{code}]" + (f" for {language}" if language else "")
                what = f"the threshold {threshold:g} of {where} is never reached: {name!r} gives {height:g} at most"
                yield Remark("dead", what)


def _threshold(rules: CategoryPolicy, language: str) -> float | None:
    by_language: dict[str, float] = {"": rules.threshold, **rules.thresholds}  # type: ignore[dict-item]
    return by_language.get(language)


def _of_category(where: str, code: str, rules: CategoryPolicy, reported: _Reported) -> Iterator[Remark]:
    for phase in STRICTNESS:
        if _acts(rules, phase) and reported.anywhere(code) and not reported.within(phase, code):
            what = (
                f'{where} {phase} = "{getattr(rules, phase)}" has no effect: nobody who judges the {phase} reports it'
            )
            yield Remark("dead", what)
    for language, threshold in rules.thresholds.items():
        if threshold == rules.threshold:
            yield Remark("dead", f"{where} thresholds.{language} is its threshold already")
    if rules.threshold == 0.0:
        yield Remark("exposure", f"{where} threshold = 0 acts on whatever a detector gives, sure or not")
    yield from _contradictions(where, code, rules, reported)


def _contradictions(where: str, code: str, rules: CategoryPolicy, reported: _Reported) -> Iterator[Remark]:
    ends = rules.output in ("replace", "stop")
    if ends and rules.reward == 0.0 and reported.within("reward", code):
        what = f"{where} ends answers with it and takes nothing from their reward: the model is trained to write it"
        yield Remark("contradiction", what)
    if rules.corpus == "drop" and rules.output == "allow" and reported.within("output", code):
        what = f"{where} drops it from the corpus and lets the model say it"
        yield Remark("contradiction", what)
    if rules.input == "block" and rules.output == "allow" and reported.within("output", code):
        what = f"{where} blocks the question and allows the answer"
        yield Remark("contradiction", what)
    if rules.reward == 1.0 and not ends and rules.output == "allow" and reported.within("output", code):
        what = f"{where} takes the whole reward from an answer that it lets pass"
        yield Remark("contradiction", what)


def _of_detector(entry: DetectorEntry) -> Iterator[Remark]:
    if entry.on_error == "open":
        what = f"the detector {entry.name!r} fails open: what it would have found passes when it raises or is late"
        yield Remark("exposure", what)
    if entry.deadline_ms < _SHORTEST_MS:
        what = f"the detector {entry.name!r} has a deadline of {entry.deadline_ms:g} ms, which none can keep"
        yield Remark("delay", what)
    if entry.deadline_ms > _LONGEST_MS:
        what = f"the detector {entry.name!r} has a deadline of {entry.deadline_ms:g} ms: answers wait as long for it"
        yield Remark("delay", what)


def _whole_answers(panel: Panel) -> Iterator[Remark]:
    for detector in panel.detectors("output"):
        if not isinstance(detector, StreamingDetector):
            what = f"the detector {detector.name!r} judges whole answers only: streamed answers are held to their end"
            yield Remark("delay", what)


def _of_the_whole(policy: Policy) -> Iterator[Remark]:
    file = policy.file
    if not file.failure.zh:
        yield Remark("language", "[failure] has no zh: Chinese users are told of a failure in English")
    for code, rules in file.categories.items():
        if rules.message and not rules.message.zh:
            yield Remark("language", f"[categories.{code}] has no message.zh: Chinese users are answered in English")
    if not policy.detectors:
        yield Remark("dead", "there is no detector: nothing is judged")
    for role in file.input.trusted_roles:
        if role == "user":
            yield Remark("exposure", '[input] trusts the role "user": what people write is not judged')
        elif role == "tool":
            yield Remark("exposure", '[input] trusts the role "tool": instructions hidden in what tools return pass')
        elif role not in _ROLES:
            yield Remark("dead", f"[input] trusts the role {role!r}, which no conversation has")
    if file.audit is not None and file.audit.text:
        yield Remark("exposure", "[audit] text = true writes down what was to be protected")
    if file.audit is not None and not file.audit.keep:
        yield Remark("exposure", "[audit] says no `keep`: records stay until somebody prunes them")


def _acts(rules: CategoryPolicy, phase: str) -> bool:
    if phase == "reward":
        return rules.reward > 0.0
    return bool(getattr(rules, phase) != STRICTNESS[phase][0])


def _acts_anywhere(rules: CategoryPolicy) -> bool:
    return any(_acts(rules, phase) for phase in PHASES)


def overview(policy: Policy) -> list[tuple[str, ...]]:
    """Return the policy as rows: category, threshold, and what each component does; listed categories, then the
    default.
    """
    codes = [code for code in taxonomy().titles if code in policy.file.categories]
    rows = []
    for code in [*codes, *([DEFAULT] if DEFAULT in policy.file.categories else [])]:
        rows.append(_row(code, policy.file.categories[code]))
        of_code = ((entry.name, policy.of_detectors.get((entry.name, code))) for entry in policy.detectors)
        rows += [_row(f"  {code} by {name}", rules) for name, rules in of_code if rules is not None]
    return rows


def _row(name: str, rules: CategoryPolicy) -> tuple[str, ...]:
    overrides = ", ".join(f"{language} {value:g}" for language, value in rules.thresholds.items())
    threshold = f"{rules.threshold:g}" + (f" ({overrides})" if overrides else "")
    actions = [str(getattr(rules, phase)) for phase in STRICTNESS]
    return (name, threshold, actions[0], f"{rules.reward:g}", *actions[1:])
