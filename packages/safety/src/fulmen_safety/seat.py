"""One detector in its place on the panel: asked under its deadline, its findings checked and given raw offsets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from fulmen_core.descriptors import DetectorInfo
from fulmen_core.errors import PluginError, UserError
from fulmen_core.guard import Finding
from fulmen_safety.deadline import Call, Deadline, Late, Outcome, in_turn
from fulmen_safety.detector import (
    Detector,
    InContext,
    IncrementalDetector,
    PlainReader,
    Scorer,
    StreamingDetector,
    incremental,
)
from fulmen_safety.following import Followed, Following
from fulmen_safety.normalise import View
from fulmen_safety.policy_file import DetectorEntry
from fulmen_safety.taxonomy import taxonomy

#: A detector's deadline is for this many characters, and grows in proportion above.
DEADLINE_CHARACTERS = 20_000

#: Whatever keeps a detector from being had.
_OR_ELSE = (
    "pip install 'fulmen[raise]' brings the detectors of the default policy; enabled = false leaves one out, in a "
    "policy that extends this one"
)


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


class Seen(NamedTuple):
    """A finding, and the view of the text that showed it."""

    finding: Finding
    view: str


class Judgement(NamedTuple):
    """What a seat's detector found, and the raw index before which that is settled; or why it gave no result."""

    seen: list[Seen]
    hold: int
    failed: Exception | None
    seconds: float


class Text(NamedTuple):
    """What detectors are asked about.

    Args:
        raw: as written.
        shown: its views.
        final: False if it is the beginning of something longer.
        since: raw index; findings that start before it are not wanted, and may be left out.
        following: what the detectors remember of the stream that it is the end of, if it is.
    """

    raw: str
    shown: Sequence[View]
    final: bool = True
    since: int = 0
    following: Following | None = None


class Question:
    """A text, and the detectors that are asked about it one after another, each under its own deadline."""

    def __init__(self, seats: Sequence[Seat], text: Text) -> None:
        self.seats, self.text = seats, text
        self.calls = [seat.to_judge(text) for seat in seats if seat.fault is None]

    def judgements(self, outcomes: Iterator[Outcome]) -> list[Judgement]:
        """Return what each detector found, given what came of the calls."""
        length = len(self.text.raw)
        return [
            seat.judged(next(outcomes), length) if seat.fault is None else Judgement([], 0, seat.fault, 0.0)
            for seat in self.seats
        ]


def judge_in_turn(questions: Sequence[Question]) -> list[list[Judgement]]:
    """Ask the detectors of every question, all in one turn, and return what each of them found."""
    outcomes = iter(in_turn([call for question in questions for call in question.calls]))
    return [question.judgements(outcomes) for question in questions]


class Seat:
    """One detector with what the policy says about it. Its findings carry the entry's name."""

    def __init__(
        self,
        entry: DetectorEntry,
        info: DetectorInfo,
        detector: Detector,
        phases: tuple[str, ...],
        limited: Deadline[Any] | None = None,
    ) -> None:
        self.entry, self.info, self.detector, self.phases = entry, info, detector, phases
        self.streaming = detector if isinstance(detector, StreamingDetector) else None
        self.incremental = incremental(detector)
        self._reads_plain = self.streaming is None and isinstance(detector, PlainReader) and detector.reads_plain
        self._limited: Deadline[Any] = limited or Deadline(_call)
        self.fault: Exception | None = None  # for which it cannot be asked
        self._categories = frozenset(info.categories)

    @classmethod
    def load(cls, entry: DetectorEntry, source: DetectorSource, where: str) -> Seat:
        """Make the detector that an entry names.

        Raises:
            PluginError: it is not installed, broken, blocked or no detector.
            UserError: its settings are wrong, or it does not offer a phase that the policy wants.
        """
        try:
            info = source.detector_info(entry.name)
        except PluginError as error:
            remedy = "; ".join(part for part in (error.remedy, _OR_ELSE) if part)
            raise PluginError(error.what, where=error.where or where, remedy=remedy) from error
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

    def in_context(self, messages: Sequence[Mapping[str, str]]) -> Seat:
        """Return the seat for an answer to `messages`: itself, unless its detector wants to know what was asked.

        A detector that fails at this fails at every question.
        """
        if not isinstance(self.detector, InContext):
            return self
        length = sum(len(message.get("content") or "") for message in messages)
        try:
            detector = self._ask(length, self.detector.in_context, messages)
            if not isinstance(detector, Detector):
                raise DetectorFault("what in_context() gave has no name and scan()")
        except Exception as error:
            seat = Seat(self.entry, self.info, self.detector, self.phases, self._limited)
            seat.fault = error
            return seat
        return Seat(self.entry, self.info, detector, self.phases, self._limited)

    def judge(self, text: str, shown: Sequence[View]) -> list[Seen]:
        """Return the findings in a whole text, with raw offsets.

        Raises:
            Late: the deadline passed.
            DetectorFault: it broke its contract.
            Exception: whatever it raised.
        """
        [[judgement]] = judge_in_turn([Question([self], Text(text, shown))])
        if judgement.failed is not None:
            raise judgement.failed
        return judgement.seen

    def looks_at(self, shown: Sequence[View]) -> Sequence[View]:
        """Return the views of a text that the detector is asked about, which are all but for a `PlainReader`."""
        if self._reads_plain and len(shown) > 1 and shown[1].spells(shown[0]):
            return shown[1:]
        return shown

    def scores(self, text: str) -> Mapping[str, float] | None:
        """Return what the detector thinks of the whole text, category by category; None if it has no opinion of every
        text. Raises as `judge` does.
        """
        if not isinstance(self.detector, Scorer):
            return None
        scores: Mapping[str, float] = self._ask(len(text), self.detector.scores, text)
        return scores

    def failure(self, error: Exception) -> Failure:
        """Return the failure that `error` is under the policy."""
        reason = str(error) if isinstance(error, Late | DetectorFault) else f"{type(error).__name__}: {error}"
        return Failure(
            self.entry.name, f"detector {self.entry.name!r} failed: {reason}", self.entry.on_error == "closed"
        )

    def _ask(self, length: int, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._limited.call(self._seconds(length), function, *arguments)

    def _seconds(self, length: int) -> float:
        return self.entry.deadline_ms / 1000 * max(1.0, length / DEADLINE_CHARACTERS)

    def to_judge(self, text: Text) -> Call:
        """Return the call by which the detector is asked about a text."""
        length = len(text.raw)
        if self.incremental is not None and text.following is not None and not text.final:
            arguments: tuple[Any, ...] = (_follow, text.following.of(self.entry.name), self.incremental, text)
        else:
            arguments = (_judge, self.detector, self.streaming, text, self.looks_at(text.shown))
        return Call(self._limited, self._seconds(length), arguments)

    def judged(self, outcome: Outcome, length: int) -> Judgement:
        """Return what came of that call."""
        if outcome.error is not None:
            return Judgement([], 0, outcome.error, outcome.seconds)
        seen, hold = outcome.result
        try:
            for finding, _ in seen:
                self._check(finding, length)
        except DetectorFault as fault:
            return Judgement([], 0, fault, outcome.seconds)
        named = [Seen(replace(finding, detector=self.entry.name), view) for finding, view in seen]
        return Judgement(named, hold, None, outcome.seconds)

    def _check(self, finding: Finding, length: int) -> None:
        if not 0 <= finding.start < finding.end <= length:
            raise DetectorFault(f"a span {finding.start}:{finding.end} in a text of {length} characters")
        if not 0.0 <= finding.score <= 1.0:
            raise DetectorFault(f"a score of {finding.score}")
        if finding.category not in taxonomy().titles or not {"*", finding.category} & self._categories:
            raise DetectorFault(f"the category {finding.category!r}, which it does not declare")


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _judge(
    detector: Detector, streaming: StreamingDetector | None, text: Text, shown: Sequence[View]
) -> tuple[list[Seen], int]:
    """Scan each view in `shown` and bring what is found back to the raw text. Runs under the deadline.

    By the law *local*, what starts at `since` or later can be seen without what lies further back than the detector
    looks; and nothing need be seen while all of that may still change.
    """
    since = text.since
    if not text.final:
        if streaming is None:
            return [], 0  # it judges whole answers only: all is held until the end
        hold = min([shown[0].decided, *(view.raw_index(streaming.hold_from(view.text)) for view in shown)])
        if hold <= since:
            return [], hold
    else:
        hold = shown[0].decided
    found = []
    for view in shown:
        cut = max(0, view.index_from(since) - streaming.look_behind) if since and streaming is not None else 0
        found += _in_raw(detector.scan(view.text[cut:]), view, cut)
    return found, hold


def _follow(followed: Followed, detector: IncrementalDetector, text: Text) -> tuple[list[Seen], int]:
    """As `_judge`, of a stream whose earlier text the detector has read."""
    found: list[Seen] = []
    hold = text.shown[0].decided
    for view in text.shown:
        follower, dropped = followed.reader(view.name, detector)
        seen, settled = follower.read(view.text, dropped, view.index_from(text.since))
        hold = min(hold, view.raw_index(settled))
        if seen:
            found += _in_raw(seen, view, 0)
    followed.keep([view.name for view in text.shown])
    return found, hold


def _in_raw(findings: Iterable[Finding], view: View, cut: int) -> list[Seen]:
    """Return what was found in ``view.text[cut:]``, in the raw text."""
    seen = []
    for finding in findings:
        if not 0 <= finding.start < finding.end <= len(view.text) - cut:
            raise DetectorFault(f"a span {finding.start}:{finding.end} in a text of {len(view.text) - cut} characters")
        start, end = view.raw_span(finding.start + cut, finding.end + cut)
        seen.append(Seen(replace(finding, start=start, end=end), view.name))
    return seen
