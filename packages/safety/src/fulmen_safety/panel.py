"""The detectors of a policy, asked in its order, each over every view of the text and each under its own deadline.

Not a broadcast: one detector that raises, is late or breaks its contract must not cost the results of the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fulmen_core.descriptors import DetectorInfo
from fulmen_core.errors import PluginError, UserError
from fulmen_core.guard import Finding
from fulmen_safety.deadline import Deadline, Late
from fulmen_safety.detector import Detector, Redactor, StreamingDetector
from fulmen_safety.normalise import View, views
from fulmen_safety.policy import DetectorEntry, Policy
from fulmen_safety.taxonomy import taxonomy

log = logging.getLogger(__name__)

#: A detector's deadline is for this many characters, and grows in proportion above.
DEADLINE_CHARACTERS = 20_000


class DetectorSource(Protocol):
    """Where detectors come from: `fulmen_core.registry.Registry`."""

    def detector_info(self, name: str) -> DetectorInfo:
        """Return the description of a detector; `PluginError` if there is none or it is broken."""
        ...

    def detector(self, name: str, settings: Mapping[str, object]) -> Any:
        """Make a detector with its settings."""
        ...


class DetectorFault(Exception):
    """A detector broke its contract."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A detector that gave no result. `closed`: the policy says to act as if it had found something."""

    detector: str
    reason: str
    closed: bool


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


class Panel:
    """The loaded detectors of one policy."""

    def __init__(self, policy: Policy, source: DetectorSource) -> None:
        """Load every detector that the policy names, in its order.

        Raises:
            PluginError: one is not installed, broken, blocked or no detector.
            UserError: its settings are wrong, or it does not offer a phase that the policy wants.
        """
        self._seats = [_Seat.load(entry, source, policy.where) for entry in policy.file.detectors]
        self._seat_of = {seat.entry.name: seat for seat in self._seats}

    def detectors(self, phase: str) -> list[Detector]:
        """Return the detectors that judge in a phase, in order."""
        return [seat.detector for seat in self._seats if phase in seat.phases]

    def infos(self) -> list[DetectorInfo]:
        """Return the descriptions of all, in order."""
        return [seat.info for seat in self._seats]

    def look_behind(self, phase: str) -> int:
        """Return how many characters before unreleased text the phase's streaming detectors may still look at."""
        reach = (seat.streaming.look_behind for seat in self._seats if phase in seat.phases and seat.streaming)
        return max(reach, default=0)

    def read(self, text: str, phase: str, *, final: bool = True, without: Collection[str] = ()) -> Reading:
        """Ask the phase's detectors about `text`.

        Args:
            text: as written; with ``final=False`` the beginning of something longer.
            without: detectors to leave out: those that failed before on the same stream.
        """
        shown = views(text, final=final, decoded=phase != "output")
        findings: dict[tuple[object, ...], Finding] = {}
        failures, milliseconds, hold = [], {}, len(text)
        for seat in self._seats:
            if phase not in seat.phases or seat.entry.name in without:
                continue
            began = time.perf_counter()
            try:
                seen, settled = seat.judge(text, shown, final=final)
            except Exception as error:
                failures.append(seat.failure(error))
            else:
                hold = min(hold, settled)
                for one in seen:
                    key = (one.detector, one.category, one.label, one.start, one.end)
                    if key not in findings or findings[key].score < one.score:
                        findings[key] = one
            milliseconds[seat.entry.name] = (time.perf_counter() - began) * 1000
        ordered = sorted(findings.values(), key=lambda one: (one.start, one.end, one.detector, one.label))
        return Reading(tuple(ordered), tuple(failures), hold, tuple(shown), milliseconds)

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


class _Seat:
    """One detector with what the policy says about it."""

    def __init__(self, entry: DetectorEntry, info: DetectorInfo, detector: Detector, phases: tuple[str, ...]) -> None:
        self.entry, self.info, self.detector, self.phases = entry, info, detector, phases
        self.streaming = detector if isinstance(detector, StreamingDetector) else None
        self._limited = Deadline(_judge)

    @classmethod
    def load(cls, entry: DetectorEntry, source: DetectorSource, where: str) -> _Seat:
        try:
            info = source.detector_info(entry.name)
        except PluginError as error:
            raise PluginError(error.what, where=error.where or where, remedy=error.remedy) from error
        phases: tuple[str, ...] = entry.phases if entry.phases is not None else info.phases
        for phase in phases:
            if phase not in info.phases:
                what = f"the detector {entry.name!r} does not judge the phase {phase!r}"
                raise UserError(what, where=where, remedy=f"its phases are {', '.join(info.phases)}")
        detector = source.detector(entry.name, entry.settings)
        if not isinstance(detector, Detector):
            what = f"what the plugin makes for the detector {entry.name!r} has no name and scan()"
            raise PluginError(what, remedy="see fulmen_safety.detector")
        return cls(entry, info, detector, phases)

    def judge(self, text: str, shown: Sequence[View], *, final: bool) -> tuple[list[Finding], int]:
        """Return the findings with raw offsets, and the raw index before which they are settled."""
        seconds = self.entry.deadline_ms / 1000 * max(1.0, len(text) / DEADLINE_CHARACTERS)
        seen, hold = self._limited.call(seconds, self.detector, self.streaming, shown, final)
        for finding in seen:
            self._check(finding, len(text))
        return [replace(finding, detector=self.entry.name) for finding in seen], hold

    def failure(self, error: Exception) -> Failure:
        reason = str(error) if isinstance(error, Late | DetectorFault) else f"{type(error).__name__}: {error}"
        return Failure(
            self.entry.name, f"detector {self.entry.name!r} failed: {reason}", self.entry.on_error == "closed"
        )

    def _check(self, finding: Finding, length: int) -> None:
        if not 0 <= finding.start < finding.end <= length:
            raise DetectorFault(f"a span {finding.start}:{finding.end} in a text of {length} characters")
        if not 0.0 <= finding.score <= 1.0:
            raise DetectorFault(f"a score of {finding.score}")
        declared = self.info.categories
        if finding.category not in taxonomy().titles or not {"*", finding.category} & set(declared):
            raise DetectorFault(f"the category {finding.category!r}, which it does not declare")


def _judge(
    detector: Detector, streaming: StreamingDetector | None, shown: Sequence[View], final: bool
) -> tuple[list[Finding], int]:
    """Scan each view and bring what is found back to the raw text. Runs under the deadline."""
    if not final and streaming is None:
        return [], 0  # it judges whole answers only: all is held until the end
    found, hold = [], shown[0].decided
    for view in shown:
        for finding in detector.scan(view.text):
            if not 0 <= finding.start < finding.end <= len(view.text):
                raise DetectorFault(f"a span {finding.start}:{finding.end} in a text of {len(view.text)} characters")
            start, end = view.raw_span(finding.start, finding.end)
            found.append(replace(finding, start=start, end=end))
        if not final and streaming is not None:
            hold = min(hold, view.raw_index(streaming.hold_from(view.text)))
    return found, hold
