"""What a detector is, and the two laws by which a streamed answer can be judged piece by piece without leaking.

A `Detector` scans a whole text. A `StreamingDetector` can also say how much of an unfinished text it has made up its
mind about. Write T for a text, T·U for any longer one:

* **settled**: with ``h = hold_from(T)``, the findings of ``scan(T·U)`` that start before ``h`` are exactly those of
  ``scan(T)`` that start before ``h``, whatever U is: same spans, labels and scores.
* **local**: whether there is a finding at ``i``, and which, depends only on ``T[i - look_behind:]``. So a stream may
  forget what lies further back than `look_behind` characters before the first text it still holds.

The guard releases ``T[:h]`` of the strictest detector and forgets it; the laws make that equal to judging the whole
answer at once. `fulmen_safety.conformance` tests a detector against both. A detector that is not a
`StreamingDetector` may still guard an output: the answer is then held until it is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from fulmen_core.guard import Finding

PHASES = ("corpus", "reward", "input", "output")


@runtime_checkable
class Detector(Protocol):
    """Finds things in text. Must be a pure function of the text and safe to call from several threads at once."""

    name: str

    def scan(self, text: str) -> Sequence[Finding]:
        """Return what is in `text`, in any order, overlapping or not; offsets are indices into `text`, never empty
        spans."""
        ...


@runtime_checkable
class StreamingDetector(Detector, Protocol):
    """A detector that keeps the two laws."""

    look_behind: int  # characters before a finding's start that may decide it

    def hold_from(self, text: str) -> int:
        """Return the index from which `text` must be held back: a longer text could still make or change a finding
        there.

        ``len(text)`` if nothing needs to be held. Called often, on short texts; it should cost microseconds.
        """
        ...


class Follower(Protocol):
    """Reads one stream as it grows, for a detector that does not want to look at the same characters again."""

    def read(self, text: str, dropped: int, since: int) -> tuple[Sequence[Finding], int]:
        """Return those findings of ``scan(text)`` that start in ``[since, hold)``, and ``hold``, which is
        ``hold_from(text)``. What starts elsewhere may be among them, and is not wanted.

        Args:
            text: what was read last, without its first `dropped` characters, and with more at its end. If it is
                anything else (a disguise that ended far back looks different now) the stream is read anew.
            since: index in `text`; all before it was settled when less of the stream was there. At least `look_behind`
                characters lie before it, unless the stream began later.
        """
        ...


@runtime_checkable
class IncrementalDetector(StreamingDetector, Protocol):
    """A streaming detector whose work on a piece is in proportion to the piece."""

    def follow(self, least: float = 0.0) -> Follower:
        """Return what reads one stream, from its start or from anywhere in it.

        Args:
            least: findings with a lower score count for nothing, and may be left out.
        """
        ...


def incremental(detector: Detector) -> IncrementalDetector | None:
    """Return the detector if its streams are read by what it gives to `follow` them.

    None for one that inherits `follow` and says otherwise what it finds or holds: its own `scan` and `hold_from` are
    what counts.
    """
    if not isinstance(detector, IncrementalDetector):
        return None
    said = [getattr(detector, "__dict__", {}), *map(vars, type(detector).__mro__)]
    depth = {
        name: next(depth for depth, names in enumerate(said) if name in names)
        for name in ("follow", "scan", "hold_from")
    }
    return detector if depth["follow"] == min(depth.values()) else None


@runtime_checkable
class PlainReader(Protocol):
    """A detector of whole texts to which a plain character says what the one that was written says: an apostrophe for a
    typographic one, a letter for one with an accent. Where the folded view has one character for each of the text, it
    is shown that view and not the raw one, which takes half the time. Means nothing for a `StreamingDetector`.
    """

    reads_plain: bool


@runtime_checkable
class Scorer(Protocol):
    """A detector that has an opinion of every text, not only of those in which it finds something. Needed to rank
    texts: without it all below a detector's floor are alike.
    """

    def scores(self, text: str) -> Mapping[str, float]:
        """Return category of the taxonomy -> calibrated probability in [0, 1] that `text`, as a whole, is of it."""
        ...


@runtime_checkable
class Redactor(Protocol):
    """A detector with its own idea of what to put in place of a finding. Others get the label in brackets,
    ``[EMAIL]``."""

    def replacement(self, found: str, finding: Finding) -> str:
        """Return what stands in for `found`, the finding's text as it was written. Must not reveal it."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A detector that knows how sure it can get: lets the linter tell a threshold that nothing will ever reach."""

    def highest_scores(self) -> Mapping[str, float]:
        """Return category -> the highest score that a finding of it can have. What is absent may reach 1."""
        ...


@runtime_checkable
class InContext(Protocol):
    """A detector that judges an answer by what was asked: an error that the answer only quotes, a claim that the
    source in the prompt does not hold, a person whose name the user gave.
    """

    def in_context(self, messages: Sequence[Mapping[str, str]]) -> Detector:
        """Return the detector for an answer to `messages`, the conversation that the model saw; ``role`` and
        ``content`` each.

        Called once an answer, under the detector's deadline; what is returned is asked in its place, keeps the same
        contract and, if it is a `StreamingDetector`, both laws. Without a conversation (a document, a text on its
        own) the detector itself is asked.
        """
        ...
