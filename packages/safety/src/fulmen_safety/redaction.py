"""Redacting a text of any length: piece by piece, as a streamed answer is, under a policy that only redacts."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.guard import Finding
from fulmen_core.suggestions import remedy_for_unknown
from fulmen_safety.edits import Edit, plan_edits
from fulmen_safety.hold_back import HoldBack
from fulmen_safety.panel import DetectorSource, Panel
from fulmen_safety.policy import STRICTNESS, Policy, load_policy, make_policy


@dataclass(frozen=True)
class OnlyKinds(Policy):
    """A policy under which only findings of some kinds count; None: of all."""

    kinds: frozenset[str] | None = None

    def counts(self, finding: Finding, text: str) -> bool:
        """Return whether the finding is of one of the kinds and reaches its threshold."""
        return (self.kinds is None or finding.label in self.kinds) and super().counts(finding, text)


class Redaction:
    """Redacts texts. `spans` are those of the text last redacted, once `redacted` has come to its end."""

    def __init__(
        self,
        source: DetectorSource,
        policy: Path | str | None = None,
        *,
        kinds: Iterable[str] = (),
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Load the detectors.

        Args:
            policy: a file or a profile; what it does more than nothing about becomes redacting. None: redact all.
            kinds: labels of what to redact; none: everything that is found.
            settings: detector -> settings over those of the policy.

        Raises:
            UserError: a faulty policy or setting, or a kind that no detector finds.
            PluginError: a detector that cannot be used.
        """
        base = _redact_all() if policy is None else load_policy(policy)
        base = _only_redacting(base, settings or {})
        wanted = frozenset(kinds)
        self._policy = OnlyKinds(
            base.file, base.version, base.where, base.folder, base.of_detectors, kinds=wanted or None
        )
        self._panel = Panel(self._policy, source)
        known = [getattr(self._panel.detector(entry.name), "kinds", None) for entry in base.detectors]
        if wanted and all(known):
            _check_kinds(wanted, {kind for kinds in known for kind in kinds or ()})
        self._edits: list[Edit] = []

    @property
    def spans(self) -> list[tuple[int, int, str]]:
        """Start and end in the text as it was given, and kind, of everything that was replaced, in order."""
        return [(one.start, one.end, one.finding.label or one.finding.category) for one in self._edits]

    def redacted(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the redacted text, however it is cut.

        Raises:
            UserError: a detector failed that fails closed.
        """
        stream = HoldBack(self._panel, self._policy, "en")
        found: list[Finding] = []
        for piece in _ended(pieces):
            chunk = stream.finish() if piece is None else stream.feed(piece)
            if chunk.stop:
                what = f"the detector {', '.join(chunk.degraded)} gave no result, so the text was not redacted"
                raise UserError(what, remedy="raise its deadline_ms in the policy, or leave it out")
            found += chunk.findings
            yield chunk.text
        judged = ((finding, self._policy.action(finding, "output")) for finding in found)
        self._edits = plan_edits(judged, STRICTNESS["output"])


def _ended(pieces: Iterable[str]) -> Iterator[str | None]:
    yield from pieces
    yield None


def _redact_all() -> Policy:
    source = (resources.files("fulmen_safety") / "data/policies/redact.toml").read_text("utf-8")
    return make_policy(tomllib.loads(source), where="the policy of `fulmen raise redact`", folder=Path.cwd())


def _only_redacting(policy: Policy, settings: Mapping[str, Mapping[str, Any]]) -> Policy:
    """Return `policy` with every action on an answer made "redact" but where neither corpus nor output do anything."""

    def redacting(rules: Any) -> Any:
        nothing = rules.output == "allow" and rules.corpus == "keep"
        return rules.model_copy(update={"output": "allow" if nothing else "redact"})

    detectors = tuple(
        entry.model_copy(update={"settings": {**entry.settings, **settings.get(entry.name, {})}})
        for entry in policy.file.detectors
    )
    categories = {code: redacting(rules) for code, rules in policy.file.categories.items()}
    file = policy.file.model_copy(update={"detectors": detectors, "categories": categories})
    return replace(
        policy, file=file, of_detectors={key: redacting(rules) for key, rules in policy.of_detectors.items()}
    )


def _check_kinds(wanted: Iterable[str], known: set[str]) -> None:
    for kind in sorted(wanted):
        if kind not in known:
            raise UserError(
                f"unknown kind {kind!r}", where="--kinds", remedy=remedy_for_unknown(kind, sorted(known), kind="kinds")
            )
