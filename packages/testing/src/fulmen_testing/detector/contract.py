"""The contract of a detector: what it declares is true, its spans are valid, and it is a pure function of the text."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from fulmen_core.descriptors import DetectorInfo
from fulmen_core.errors import UserError
from fulmen_core.guard import Finding
from fulmen_safety.conformance import faults
from fulmen_safety.detector import PHASES, Detector, Redactor, StreamingDetector
from fulmen_safety.taxonomy import taxonomy
from fulmen_testing.claims import Record
from fulmen_testing.detector.trial import DetectorTrial
from fulmen_testing.subject import Subject
from fulmen_testing.texts import STRANGE, long_text

COSTS = ("rules", "linear", "model")
#: What a deadline of the default policy is for: so many characters in so many seconds.
LONG, SECONDS = 20_000, 2.0

#: Makes the detector in another process, as a data worker of RAISE-1 does, and prints what it finds.
_ELSEWHERE = """
import json, sys
from fulmen_core.registry import Registry
module, name, settings, texts = json.load(sys.stdin)
registry = Registry.discover(files=[module["file"]]) if module["file"] else Registry.of(module["module"])
detector = registry.detector(name, settings)
rows = [[[f.start, f.end, f.category, f.label, f.score] for f in detector.scan(text)] for text in texts]
print(json.dumps(rows))
"""


class ContractClaims(DetectorTrial):
    """A detector says what it judges, and finds it where it says."""

    def test_what_it_declares_is_in_the_taxonomy(
        self, info: DetectorInfo, detector: Detector, subject: Subject
    ) -> None:
        """Phases, categories, languages and cost are declared, and are ones that there are"""
        assert detector.name == info.name == subject.name
        assert info.phases, "it declares no phase: no policy can use it"
        assert set(info.phases) <= set(PHASES)
        assert info.categories, "it declares no category: no policy can act on what it finds"
        assert set(info.categories) <= {*taxonomy().titles, "*"}
        assert info.languages
        assert [one for one in info.languages if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|\*", one)] == []
        assert info.cost in COSTS
        assert info.summary.strip()

    def test_a_setting_it_does_not_know_is_refused(self, subject: Subject) -> None:
        """A setting that it does not know is refused by name: a misspelt one would go unnoticed"""
        with pytest.raises(UserError, match="nonesuch_setting"):
            subject.registry.detector(subject.name, {**subject.settings, "nonesuch_setting": 1})

    def test_it_finds_what_it_is_for(self, subject: Subject, detector: Detector, seen: list[str]) -> None:
        """It finds something in every example, and in some text at all"""
        assert [text for text in subject.examples if not detector.scan(text)] == []
        if not any(detector.scan(text) for text in seen):
            pytest.skip("it finds nothing in the kit's texts: give examples in which it must")

    def test_spans_scores_and_categories_are_valid(
        self, info: DetectorInfo, detector: Detector, seen: list[str]
    ) -> None:
        """Spans lie in the text, scores in 0 to 1, categories among those declared: in empty, mixed, astral and broken
        text"""
        for text in seen:
            for finding in detector.scan(text):
                _assert_valid(finding, text, info)

    def test_a_very_long_text_is_scanned_in_time(
        self, info: DetectorInfo, detector: Detector, seed: int, record_property: Record
    ) -> None:
        """20,000 characters are scanned within the default deadline, and ten times as many in about ten times that"""
        timings = []
        for characters in (LONG, 10 * LONG):
            text = long_text(seed, characters)
            detector.scan(text[:1000])
            started = time.perf_counter()
            found = detector.scan(text)
            timings.append(time.perf_counter() - started)
            for finding in found:
                _assert_valid(finding, text, info)
        record_property(
            "measured",
            f"{timings[0] * 1000:.1f} ms for {LONG} characters, {timings[1] * 1000:.0f} ms for ten times as many",
        )
        assert timings[0] < SECONDS
        assert timings[1] < 40 * max(timings[0], 0.005)

    def test_repetition_costs_no_more(self, detector: Detector) -> None:
        """A text of one thing repeated, which makes careless patterns slow, is scanned in time"""
        for unit in ("a", "1", " ", "@", ".", "-", "一", "a1", "1 ", "a@", "\u200b", "="):
            started = time.perf_counter()
            detector.scan(unit * (LONG // len(unit)))
            assert time.perf_counter() - started < SECONDS, f"{LONG} characters of {unit!r}"

    def test_it_is_a_pure_function_of_the_text(self, subject: Subject, detector: Detector, seen: list[str]) -> None:
        """The same text gives the same findings: again, after others, and from another detector of the same settings"""
        settings = dict(subject.settings)
        other = subject.registry.detector(subject.name, settings)
        assert settings == subject.settings, "it changed the settings that it was given"
        first = [_rows(detector, text) for text in seen]
        assert [_rows(detector, text) for text in reversed(seen)] == first[::-1]
        assert [_rows(other, text) for text in seen] == first

    def test_several_threads_may_scan_at_once(self, detector: Detector, seen: list[str]) -> None:
        """Four threads that scan different texts at once find what one does"""
        expected = [_rows(detector, text) for text in seen]
        found: dict[int, list[Any]] = {}

        def scan(shift: int) -> None:
            order = seen[shift:] + seen[:shift]
            found[shift] = [_rows(detector, text) for text in order]

        threads = [threading.Thread(target=scan, args=(shift,)) for shift in (0, 30, 60, 90)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert found == {shift: expected[shift:] + expected[:shift] for shift in (0, 30, 60, 90)}

    def test_data_workers_can_have_it(
        self,
        subject: Subject,
        info: DetectorInfo,
        detector: Detector,
        seen: list[str],
        record_property: Record,
    ) -> None:
        """For RAISE-1: a worker process can make it again, and where it pickles, the copy finds the same"""
        if "corpus" not in info.phases:
            pytest.skip("it does not judge the corpus")
        clean = [text for text in seen if not any(0xD800 <= ord(char) < 0xE000 for char in text)]
        expected = [_rows(detector, text) for text in clean]
        entry = subject.entry("detector")
        where = {"module": entry.value, "file": entry.value if entry.group == "file" else ""}
        question = json.dumps([where, subject.name, dict(subject.settings), clean])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        order = [sys.executable, "-P", "-c", _ELSEWHERE]
        done = subprocess.run(
            order, input=question, capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert [[tuple(row) for row in rows] for rows in json.loads(done.stdout)] == expected
        try:
            copied = pickle.dumps(detector)
        except Exception as error:
            record_property("measured", f"it does not pickle ({type(error).__name__}): a worker makes it again")
            return
        copy = pickle.loads(copied)  # noqa: S301 - our own
        assert [_rows(copy, text) for text in clean] == expected

    def test_the_two_laws_of_streaming_hold(self, info: DetectorInfo, detector: Detector, seen: list[str]) -> None:
        """Whatever it settles stays settled, and does not hang on what lies further back than it says"""
        if not isinstance(detector, StreamingDetector):
            pytest.skip("it is no StreamingDetector: the answer is held until it is complete")
        categories = taxonomy().titles.keys() if "*" in info.categories else info.categories
        short = [text for text in seen if len(text) <= 90][:60]
        broken = {text: told for text in short if (told := faults(detector, text, categories=categories))}
        assert broken == {}

    def test_what_stands_in_for_a_finding_does_not_reveal_it(self, detector: Detector, seen: list[str]) -> None:
        """What it puts in place of a finding is text, and not the finding"""
        if not isinstance(detector, Redactor):
            pytest.skip("it has no replacement of its own: the label stands in")
        for text in seen:
            for finding in detector.scan(text):
                found = text[finding.start : finding.end]
                stand_in = detector.replacement(found, finding)
                assert isinstance(stand_in, str)
                # the kind's name says the same of every finding: "[ADDRESS]" has an E whatever the address is
                in_its_name = finding.label.casefold().count(found.casefold())
                assert stand_in.casefold().count(found.casefold()) <= in_its_name

    def test_strange_characters_do_not_break_it(self, info: DetectorInfo, detector: Detector) -> None:
        """Astral characters, joiners, halves of surrogates and NUL, before, behind and inside, raise nothing"""
        for strange in STRANGE:
            for text in (strange, strange * 50, f"a{strange}b", f"13800138000{strange}", f"{strange}john@mail.org"):
                for finding in detector.scan(text):
                    _assert_valid(finding, text, info)


def _assert_valid(finding: Finding, text: str, info: DetectorInfo) -> None:
    shown = f"{finding} in {text[:80]!r}"
    assert 0 <= finding.start < finding.end <= len(text), f"{shown} of {len(text)} characters"
    assert 0.0 <= finding.score <= 1.0, shown
    assert "*" in info.categories or finding.category in info.categories, shown
    assert finding.category in taxonomy().titles, shown


def _rows(detector: Detector, text: str) -> list[tuple[int, int, str, str, float]]:
    found: Sequence[Finding] = detector.scan(text)
    return [(one.start, one.end, one.category, one.label, one.score) for one in found]
