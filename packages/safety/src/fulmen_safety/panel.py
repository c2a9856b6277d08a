"""The detectors of a policy, asked in its order, each over every view of the text and each under its own deadline.

Not a broadcast: one detector that raises, is late or breaks its contract must not cost the results of the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fulmen_core.descriptors import DetectorInfo
from fulmen_core.guard import Finding
from fulmen_safety.detector import PHASES, Detector, Redactor
from fulmen_safety.normalise import View, views
from fulmen_safety.policy import Policy
from fulmen_safety.seat import (
    DetectorFault,
    DetectorSource,
    Failure,
    Judgement,
    Question,
    Seat,
    Seen,
    Text,
    judge_in_turn,
)

__all__ = [
    "DetectorFault",
    "DetectorSource",
    "Examination",
    "Failure",
    "Panel",
    "Reading",
    "names_of",
    "read_together",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the panel saw in a text.

    Args:
        findings: with offsets into the raw text, ordered by place; what several views show is there once.
        failures: detectors that gave no result.
        hold: index in the raw text before which the findings are settled (see `fulmen_safety.detector`).
        shown: the views that were judged.
        milliseconds: detector -> time it took.
    """

    findings: tuple[Finding, ...]
    failures: tuple[Failure, ...]
    hold: int
    shown: tuple[View, ...]
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def closed(self) -> bool:
        """Whether a detector failed that fails closed."""
        return any(failure.closed for failure in self.failures)

    @property
    def degraded(self) -> tuple[str, ...]:
        """The detectors that gave no result."""
        return names_of(self.failures)


@dataclass(frozen=True, slots=True)
class Examination:
    """All that one detector said about a text.

    Args:
        detector: its name in the policy.
        phases: where the policy asks it.
        seen: its findings, each as often as views show it.
        scores: what it thinks of the whole text, if it has an opinion of every text.
        failure: why it gave no result, if it gave none.
        milliseconds: that `scan` took over all views.
    """

    detector: str
    phases: tuple[str, ...]
    seen: tuple[Seen, ...]
    scores: Mapping[str, float] | None
    failure: Failure | None
    milliseconds: float


class Panel:
    """The loaded detectors of one policy."""

    def __init__(self, policy: Policy, source: DetectorSource) -> None:
        """Load every detector that the policy names, in its order.

        Raises:
            PluginError: one is not installed, broken, blocked or no detector.
            UserError: its settings are wrong, or it does not offer a phase that the policy wants.
        """
        self._take([Seat.load(entry, source, policy.where) for entry in policy.detectors])
        #: Detector -> the lowest score with which a finding of it may count.
        self.least_scores = {
            seat.entry.name: policy.least_score(seat.entry.name, seat.info.categories) for seat in self.seats
        }

    def _take(self, seats: list[Seat]) -> None:
        self.seats = seats
        self._seat_of = {seat.entry.name: seat for seat in seats}
        self._seats_in = {phase: [seat for seat in seats if phase in seat.phases] for phase in PHASES}

    def in_context(self, messages: Sequence[Mapping[str, str]], phase: str) -> Panel:
        """Return the panel that judges an answer to `messages` in `phase`; itself if no detector wants to know what was
        asked.
        """
        seats = [seat.in_context(messages) if phase in seat.phases else seat for seat in self.seats]
        if all(new is old for new, old in zip(seats, self.seats, strict=True)):
            return self
        panel = object.__new__(Panel)
        panel._take(seats)
        panel.least_scores = self.least_scores
        return panel

    def detector(self, name: str) -> Detector:
        """Return the detector that the policy calls `name`."""
        return self._seat_of[name].detector

    def detectors(self, phase: str) -> list[Detector]:
        """Return the detectors that judge in a phase, in order."""
        return [seat.detector for seat in self._seats_in[phase]]

    def infos(self) -> list[DetectorInfo]:
        """Return the descriptions of all, in order."""
        return [seat.info for seat in self.seats]

    def look_behind(self, phase: str) -> int:
        """Return how many characters before unreleased text the phase's streaming detectors may still look at."""
        reach = (seat.streaming.look_behind for seat in self._seats_in[phase] if seat.streaming)
        return max(reach, default=0)

    def read(
        self, text: str, phase: str, *, final: bool = True, without: Collection[str] = (), since: int = 0
    ) -> Reading:
        """Ask the phase's detectors about `text`.

        Args:
            text: as written; with ``final=False`` the beginning of something longer.
            without: detectors to leave out: those that failed before on the same stream.
            since: index in `text`; findings that start before it are not wanted, and may be missing.
        """
        shown = views(text, final=final, decoded=phase != "output")
        [reading] = read_together([self.question(Text(text, shown, final, since), phase, without)])
        return reading

    def question(self, text: Text, phase: str, without: Collection[str] = ()) -> Question:
        """Return the question that `read` asks, of a text whose views are known."""
        seats = self._seats_in[phase]
        return Question([seat for seat in seats if seat.entry.name not in without] if without else seats, text)

    def replacement(self, finding: Finding, found: str) -> str:
        """Return what stands in for a finding: what its detector says, or its label in brackets."""
        plain = f"[{(finding.label or finding.category).upper()}]"
        seat = self._seat_of[finding.detector]
        if not isinstance(seat.detector, Redactor):
            return plain
        try:
            return seat.detector.replacement(found, finding)
        except Exception as error:  # the text is redacted all the same
            log.warning("%s; redacting with %s", seat.failure(error).reason, plain)
            return plain

    def examine(self, text: str) -> list[Examination]:
        """Ask every detector about `text` alone, whatever its phases, and keep all that it said: for explanations."""
        shown = views(text, decoded=True)
        return [_examined(seat, text, shown) for seat in self.seats]


def read_together(questions: Sequence[Question]) -> list[Reading]:
    """Ask several questions in one turn, of whichever panels: handing them over costs as much as answering one."""
    judged = judge_in_turn(questions)
    return [_reading(question, judgements) for question, judgements in zip(questions, judged, strict=True)]


def _reading(question: Question, judgements: Sequence[Judgement]) -> Reading:
    findings: dict[tuple[object, ...], Finding] = {}
    failures, milliseconds, hold = [], {}, len(question.text.raw)
    for seat, (seen, settled, failed, seconds) in zip(question.seats, judgements, strict=True):
        milliseconds[seat.entry.name] = seconds * 1000
        if failed is not None:
            failures.append(seat.failure(failed))
            continue
        hold = min(hold, settled)
        for one, _ in seen:
            key = (one.detector, one.category, one.label, one.start, one.end)
            if key not in findings or findings[key].score < one.score:
                findings[key] = one
    ordered = sorted(findings.values(), key=lambda one: (one.start, one.end, one.detector, one.label))
    return Reading(tuple(ordered), tuple(failures), hold, tuple(question.text.shown), milliseconds)


def names_of(failures: Iterable[Failure]) -> tuple[str, ...]:
    """Return the detectors that failed, each once."""
    return tuple(dict.fromkeys(failure.detector for failure in failures))


def _examined(seat: Seat, text: str, shown: Sequence[View]) -> Examination:
    began = time.perf_counter()
    seen: Sequence[Seen] = ()
    scores: Mapping[str, float] | None = None
    failure = None
    try:
        seen = seat.judge(text, shown)
        judged = time.perf_counter()
        scores = seat.scores(seat.looks_at(shown)[0].text)
    except Exception as error:
        judged = time.perf_counter()
        failure = seat.failure(error)
    return Examination(seat.entry.name, seat.phases, tuple(seen), scores, failure, (judged - began) * 1000)
