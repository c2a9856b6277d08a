"""RAISE-4 on a stream: an answer is delivered as fast as no detector can still object to it, and never faster.

Let T be the answer so far. The panel settles every finding that starts before ``hold`` (`fulmen_safety.detector`, law
*settled*). Text is released up to ``hold``, or up to the start of a settled edit that reaches beyond it, because a
later finding might still overlap and join that edit. So no edit of the whole answer ever straddles the point of
release, what was released is what `judge_output` would have delivered, and what is forgotten can no longer matter
(law *local*).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fulmen_core.guard import Finding, OutputChunk
from fulmen_safety.edits import Edit, plan_edits
from fulmen_safety.following import Following
from fulmen_safety.language import CONTEXT
from fulmen_safety.normalise import REACH, View, is_plain, raw_view, views, visible
from fulmen_safety.panel import Failure, Panel, Reading, read_together
from fulmen_safety.policy import STRICTNESS, Policy
from fulmen_safety.seat import Question, Text

log = logging.getLogger(__name__)

#: Released characters that may lie about beyond those that are needed, so that the text is not moved for every token.
_SLACK = 32
#: Category of a verdict that a failed detector forced. Not a code of the taxonomy: nothing was found.
GUARD_FAILURE = "guard_failure"


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """What became of an answer. `action` is the strictest that was taken; `text` what was, or may be, delivered;
    `complete` is False if it was left before its end.
    """

    action: str
    text: str
    findings: tuple[Finding, ...] = ()
    failures: tuple[Failure, ...] = ()
    category: str = ""
    complete: bool = True


def judge_output(panel: Panel, policy: Policy, answer: str, language: str) -> OutputVerdict:
    """Judge a whole answer at once. What a stream delivers of the same answer is equal, however it was cut."""
    reading = panel.read(answer, "output")
    if reading.closed:
        message = policy.file.failure.text(language)
        return OutputVerdict("replace", message, reading.findings, reading.failures, GUARD_FAILURE)
    counted = tuple(finding for finding in reading.findings if policy.counts(finding, answer))
    edits = plan_edits(((finding, policy.action(finding, "output")) for finding in counted), STRICTNESS["output"])
    pieces, last = [], 0
    for edit in edits:
        pieces.append(answer[last : edit.start])
        last = edit.end
        if edit.action != "redact":
            if edit.action == "replace":
                pieces.append(policy.message(edit.finding, language))
            return OutputVerdict(edit.action, "".join(pieces), counted, reading.failures, edit.finding.category)
        pieces.append(panel.replacement(edit.finding, answer[edit.finding.start : edit.finding.end]))
    pieces.append(answer[last:])
    category = edits[0].finding.category if edits else ""
    return OutputVerdict("redact" if edits else "allow", "".join(pieces), counted, reading.failures, category)


def feed_together(pieces: Sequence[tuple[HoldBack, str]]) -> list[OutputChunk | Exception]:
    """Feed each of some streams, no stream twice, with one question to all their detectors.

    Returns:
        What `HoldBack.feed` returns of each, or the exception that it would raise.
    """
    chunks: dict[int, OutputChunk | Exception] = {}
    asked: list[tuple[int, HoldBack, Question]] = []
    for place, (stream, text) in enumerate(pieces):
        try:
            question = stream.question(text)
        except Exception as error:
            chunks[place] = error
            continue
        if question is None:
            chunks[place] = stream.refusal()
        else:
            asked.append((place, stream, question))
    for (place, stream, _), reading in zip(asked, read_together([one for _, _, one in asked]), strict=True):
        try:
            chunks[place] = stream.settle(reading)
        except Exception as error:
            chunks[place] = error
    return [chunks[place] for place in range(len(pieces))]


class HoldBack:
    """One guarded answer (`fulmen_core.guard.OutputStream`). Not to be shared between threads.

    Args:
        language: of the messages to the user, fixed before the first piece so that it cannot depend on the cutting.
        ended: called once with the verdict over the answer, when it is finished, stopped, or left before its end.
    """

    def __init__(
        self, panel: Panel, policy: Policy, language: str, ended: Callable[[OutputVerdict, int], None] | None = None
    ) -> None:
        self._panel, self._policy, self._language, self._ended = panel, policy, language, ended
        self._text = ""  # what is still held, after as much released text as may decide about it
        self._forgotten = 0  # characters of the answer before `_text`
        self._released = 0  # index in `_text`
        self._keep = panel.look_behind("output") + REACH
        self._plain = 0  # `_text` up to there shows nothing in any view but the raw one
        self._following = Following(panel.least_scores)
        self._out: set[str] = set()  # detectors that failed open on this answer
        self._failures: list[Failure] = []
        self._news: tuple[str, ...] = ()  # detectors that failed at the last reading
        self._findings: list[Finding] = []
        self._delivered: list[str] = []
        self._action, self._category, self._over = "allow", "", False

    def __del__(self) -> None:
        if getattr(self, "_over", True) or not (self._text or self._delivered):
            return
        try:
            self._end(complete=False)
        except Exception:  # nobody is left to hear of it
            log.exception("an answer that was left before its end could not be recorded")

    def feed(self, text: str) -> OutputChunk:
        """Take the next piece; return what may be delivered now. After a stop, everything is refused."""
        if self._over:
            return self.refusal()
        self._text += text
        return self._advance(final=False)

    def question(self, text: str) -> Question | None:
        """Take the next piece; return what the panel is to be asked before `settle`. None after a stop: `refusal`."""
        if self._over:
            return None
        self._text += text
        return self._question(final=False)

    def refusal(self) -> OutputChunk:
        """Return what is said to a piece after a stop."""
        return OutputChunk("", stop=True, category=self._category)

    def finish(self) -> OutputChunk:
        """Return the rest. A second call, or one after a stop, returns nothing."""
        if self._over:
            return OutputChunk("", stop=self._action in ("replace", "stop"), category=self._category)
        chunk = self._advance(final=True)
        if not chunk.stop:
            self._end()
        return chunk

    def _advance(self, *, final: bool) -> OutputChunk:
        [reading] = read_together([self._question(final=final)])
        return self.settle(reading, final=final)

    def _question(self, *, final: bool) -> Question:
        """Return what the panel is to be asked now."""
        text = self._text
        if not final and is_plain(text, self._plain):
            self._plain = len(text)
            shown = [raw_view(text)]
        else:
            shown = views(text, final=final)
        return self._panel.question(Text(text, shown, final, self._released, self._following), "output", self._out)

    def settle(self, reading: Reading, *, final: bool = False) -> OutputChunk:
        """Return what may be delivered after a reading."""
        self._failures += reading.failures
        self._news = reading.degraded
        self._out.update(failure.detector for failure in reading.failures)
        if reading.closed:
            return self._stop("replace", GUARD_FAILURE, self._policy.file.failure.text(self._language), [])
        release = max(self._released, len(self._text) if final else reading.hold)
        settled = [
            finding
            for finding in reading.findings
            if self._released <= finding.start < release and self._policy.counts(finding, self._text)
        ]
        judged = ((finding, self._policy.action(finding, "output")) for finding in settled)
        edits = plan_edits(judged, STRICTNESS["output"])
        if edits and edits[-1].end > release:
            release = edits.pop().start
        settled = [finding for finding in settled if finding.start < release]
        chunk = self._deliver(release, edits, [self._in_answer(finding) for finding in settled])
        if chunk.stop:
            return chunk
        if not final and release - self._keep > _SLACK:
            self._forget(
                min(view.raw_index_before(release, self._keep) for view in reading.shown), release, reading.shown
            )
        return chunk

    def _deliver(self, release: int, edits: list[Edit], findings: list[Finding]) -> OutputChunk:
        """Return ``_text[_released:release]`` with its edits made."""
        pieces, last = [], self._released
        for edit in edits:
            pieces.append(self._text[last : edit.start])
            last = edit.end
            if edit.action != "redact":
                message = self._policy.message(edit.finding, self._language) if edit.action == "replace" else ""
                return self._stop(edit.action, edit.finding.category, "".join([*pieces, message]), findings)
            found = self._text[edit.finding.start : edit.finding.end]
            pieces.append(self._panel.replacement(edit.finding, found))
            if self._action == "allow":
                self._action, self._category = "redact", edit.finding.category
        pieces.append(self._text[last:release])
        self._released = release
        self._findings += findings
        self._delivered.append("".join(pieces))
        return OutputChunk(self._delivered[-1], findings=tuple(findings), degraded=self._news)

    def _stop(self, action: str, category: str, text: str, findings: list[Finding]) -> OutputChunk:
        self._action, self._category = action, category
        self._findings += findings
        self._delivered.append(text)
        self._end()
        return OutputChunk(text, stop=True, findings=tuple(findings), category=category, degraded=self._news)

    def _end(self, *, complete: bool = True) -> None:
        self._over = True
        if self._ended:
            delivered, findings, failures = "".join(self._delivered), tuple(self._findings), tuple(self._failures)
            verdict = OutputVerdict(self._action, delivered, findings, failures, self._category, complete)
            self._ended(verdict, self._forgotten + len(self._text))
        self._text = ""

    def _forget(self, far: int, release: int, shown: Iterable[View]) -> None:
        """Keep of the released text what may still decide: a few characters of every view, back to `far` in the text.

        Between them there may be any number of characters that no view but the raw one shows; those are dropped, lest
        an answer full of them be scanned again and again.
        """
        near = max(0, release - max(self._keep, CONTEXT))
        before = visible(self._text[min(far, near) : near])
        self._text = before + self._text[near:]
        dropped = near - len(before)
        self._following.drop(shown, dropped)
        self._plain = max(0, self._plain - dropped)
        self._forgotten += dropped
        self._released -= dropped

    def _in_answer(self, finding: Finding) -> Finding:
        """The finding with offsets into the whole answer."""
        shift = self._forgotten
        return replace(finding, start=finding.start + shift, end=finding.end + shift)
