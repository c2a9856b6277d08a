"""In a guard: a stream never leaks, however it is cut, and a detector that raises does what the policy says."""

from __future__ import annotations

from typing import Any

import pytest

from fulmen_core.descriptors import DetectorInfo
from fulmen_safety.conformance import delivered
from fulmen_safety.detector import Detector
from fulmen_safety.guard import GuardFailure, RaiseGuard
from fulmen_safety.normalise import views
from fulmen_testing.detector.trial import DetectorTrial, GuardOf
from fulmen_testing.texts import cuttings

#: Ways to cut each text.
CUTTINGS = 4


class GuardClaims(DetectorTrial):
    """A detector as the guard uses it."""

    @pytest.mark.parametrize("action", ["redact", "replace", "stop"])
    def test_a_stream_delivers_what_the_whole_answer_would(
        self, info: DetectorInfo, guard_of: GuardOf, seen: list[str], action: str
    ) -> None:
        """Cut anywhere, a stream delivers what judging the whole answer does, and never takes anything back"""
        if "output" not in info.phases:
            pytest.skip("it does not judge output")
        guard = guard_of(output=action)
        for number, text in enumerate(seen):
            whole = guard.judge_output([], text).text
            for pieces in cuttings(number, text, CUTTINGS):
                assert delivered(guard, pieces) == whole, f"{text!r} cut into {pieces}"

    def test_what_is_found_is_not_delivered(
        self, info: DetectorInfo, detector: Detector, guard_of: GuardOf, seen: list[str]
    ) -> None:
        """What it finds in an answer is not in what is delivered of it"""
        if "output" not in info.phases:
            pytest.skip("it does not judge output")
        guard = guard_of(output="redact")
        for text in seen:
            found = detector.scan(_as_shown(guard, text))
            left = guard.judge_output([], text).text
            once = [one for one in found if text.count(text[one.start : one.end]) == 1 and one.end - one.start >= 4]
            assert [one for one in once if text[one.start : one.end] in left] == [], f"{text!r}: {left!r}"

    def test_the_corpus_and_the_input_are_judged(
        self, info: DetectorInfo, detector: Detector, guard_of: GuardOf, seen: list[str]
    ) -> None:
        """In the phases that it declares, what it finds changes the verdict, and nothing else does"""
        guard = guard_of()
        for text in seen:
            found = bool(detector.scan(_as_shown(guard, text)))
            if "corpus" in info.phases:
                verdict = guard.judge_document(text)
                assert verdict.action == "redact" if found else verdict.text == text or verdict.action == "redact"
            if "input" in info.phases:
                answer = guard.judge_input([{"role": "user", "content": text}])
                assert answer.action == "rewrite" if found else answer.action in ("allow", "rewrite")

    @pytest.mark.parametrize("on_error", ["closed", "open"])
    def test_when_it_raises_the_policy_decides(self, info: DetectorInfo, guard_of: GuardOf, on_error: str) -> None:
        """When it raises, nothing is delivered, or with on_error = "open" all is, in every phase that it declares"""
        guard = guard_of(on_error, lambda: _Raising(info.name))
        closed, text = on_error == "closed", "an ordinary text"
        message = [{"role": "user", "content": text}]
        if "corpus" in info.phases:
            assert guard.judge_document(text).action == ("quarantine" if closed else "keep")
        if "reward" in info.phases:
            if closed:
                with pytest.raises(GuardFailure, match=info.name):
                    guard.reward_penalty("", text)
            else:
                assert guard.reward_penalty("", text) == 0
        if "input" in info.phases:
            assert guard.judge_input(message).action == ("block" if closed else "allow")
        if "output" in info.phases:
            assert delivered(guard, [text, text]) == ("could not be checked" if closed else text + text)


def _as_shown(guard: RaiseGuard, text: str) -> str:
    """Return `text` as the guard's only detector is shown it first: in plain characters to a `PlainReader`."""
    [seat] = guard.panel.seats
    return seat.looks_at(views(text))[0].text


class _Raising:
    """The detector on a bad day."""

    def __init__(self, name: str) -> None:
        self.name = name

    def scan(self, text: str) -> Any:
        raise RuntimeError(f"{self.name} is out of order ({len(text)} characters)")
