"""What a policy says that its author may not have meant. Errors stop a policy from loading; these are remarks."""

from __future__ import annotations

from fulmen_safety.detector import StreamingDetector
from fulmen_safety.panel import Panel
from fulmen_safety.policy import DEFAULT, STRICTNESS, Policy
from fulmen_safety.taxonomy import taxonomy


def remarks(policy: Policy, panel: Panel) -> list[str]:
    """Return one sentence for each oddity, in no order of weight; none for a policy that says nothing in vain."""
    return [*_in_vain(policy, panel), *_unsaid(policy), *_open(policy), *_whole_answers(panel)]


def _in_vain(policy: Policy, panel: Panel) -> list[str]:
    declared = {category for info in panel.infos() for category in info.categories}
    if "*" in declared:
        return []
    undetected = [code for code in policy.file.categories if code not in declared and code != DEFAULT]
    if not undetected:
        return []
    return [f"no detector of this policy reports {', '.join(undetected)}: these rules have no effect"]


def _unsaid(policy: Policy) -> list[str]:
    return [
        f"[categories.{code}] has no message.zh: Chinese users are answered in English"
        for code, rules in policy.file.categories.items()
        if rules.message and not rules.message.zh
    ]


def _open(policy: Policy) -> list[str]:
    return [
        f"the detector {entry.name!r} fails open: what it would have found passes when it raises or is late"
        for entry in policy.detectors
        if entry.on_error == "open"
    ]


def _whole_answers(panel: Panel) -> list[str]:
    return [
        f"the detector {one.name!r} judges whole answers only: streamed answers are held until they are complete"
        for one in panel.detectors("output")
        if not isinstance(one, StreamingDetector)
    ]


def overview(policy: Policy) -> list[tuple[str, ...]]:
    """Return the policy as rows: category, threshold, and what each component does; listed categories, then the
    default.
    """
    codes = [code for code in taxonomy().titles if code in policy.file.categories]
    rows = []
    for code in [*codes, *([DEFAULT] if DEFAULT in policy.file.categories else [])]:
        rules = policy.file.categories[code]
        overrides = ", ".join(f"{language} {value:g}" for language, value in rules.thresholds.items())
        threshold = f"{rules.threshold:g}" + (f" ({overrides})" if overrides else "")
        actions = [str(getattr(rules, phase)) for phase in STRICTNESS]
        rows.append((code, threshold, actions[0], f"{rules.reward:g}", *actions[1:]))
    return rows
