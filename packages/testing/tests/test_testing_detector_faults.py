"""The claims about a detector fail when they must: one fault is put into a sound detector, and its claim finds it."""

from __future__ import annotations

import textwrap

import numpy as np  # noqa: F401 - before any run in this process forgets it: a second import fails, and every claim
import pytest

from .conftest import MakeSubject

pytest_plugins = ["pytester"]

MAKE = """return PatternDetector("acme", "ip_secrets", [ticket])"""

#: What is wrong: the file, the passage, what stands there instead, and the claim that must find it.
FAULTS = {
    "a span beyond the text": (
        "detector.py",
        MAKE,
        """
        class Beyond(PatternDetector):
            def scan(self, text):
                return [Finding("acme", "ip_secrets", 1.0, len(text) - 1, len(text) + 1)] if "1" in text else []
        return Beyond("acme", "ip_secrets", [ticket])
        """,
        "test_spans_scores_and_categories_are_valid",
    ),
    "a category that is not declared": (
        "detector.py",
        MAKE,
        'return PatternDetector("acme", "hate_discrimination", [ticket])',
        "test_spans_scores_and_categories_are_valid",
    ),
    "a memory": (
        "detector.py",
        MAKE,
        """
        class Remembers(PatternDetector):
            calls = 0
            def scan(self, text):
                Remembers.calls += 1
                return super().scan(text) if Remembers.calls % 3 else []
        return Remembers("acme", "ip_secrets", [ticket])
        """,
        "test_it_is_a_pure_function_of_the_text",
    ),
    "shared state between threads": (
        "detector.py",
        MAKE,
        """
        class Shared(PatternDetector):
            def scan(self, text):
                self.text = text
                __import__("time").sleep(1e-5)  # others get their turn
                return super().scan(self.text)
        return Shared("acme", "ip_secrets", [ticket])
        """,
        "test_several_threads_may_scan_at_once",
    ),
    "a stream that is released too early": (
        "detector.py",
        MAKE,
        """
        class Early(PatternDetector):
            def hold_from(self, text):
                return len(text)
        return Early("acme", "ip_secrets", [ticket])
        """,
        "test_a_stream_delivers_what_the_whole_answer_would[redact]",
    ),
    "a law that is broken": (
        "detector.py",
        MAKE,
        """
        class Early(PatternDetector):
            def hold_from(self, text):
                return max(0, len(text) - 3)
        return Early("acme", "ip_secrets", [ticket])
        """,
        "test_the_two_laws_of_streaming_hold",
    ),
    "a time that grows with the square": (
        "detector.py",
        MAKE,
        """
        class Slow(PatternDetector):
            def scan(self, text):
                for place in range(0, len(text), 10):
                    text[place:].count("q")
                return super().scan(text)
        return Slow("acme", "ip_secrets", [ticket])
        """,
        "test_a_very_long_text_is_scanned_in_time",
    ),
    "a crash on half a character": (
        "detector.py",
        MAKE,
        """
        class Encodes(PatternDetector):
            def scan(self, text):
                return super().scan(text) if text.encode() else []
        return Encodes("acme", "ip_secrets", [ticket])
        """,
        "test_strange_characters_do_not_break_it",
    ),
    "a redaction that reveals": (
        "detector.py",
        MAKE,
        """
        class Reveals(PatternDetector):
            def replacement(self, found, finding):
                return f"<{found}>"
        return Reveals("acme", "ip_secrets", [ticket])
        """,
        "test_what_stands_in_for_a_finding_does_not_reveal_it",
    ),
    "settings that are not read": (
        "detector.py",
        """prefix = read_settings(AcmeSettings, settings, "the settings of the detector 'acme'").prefix""",
        """prefix = str(settings.get("prefix", "TICK"))""",
        "test_a_setting_it_does_not_know_is_refused",
    ),
    "a phase that there is not": (
        "plugin.py",
        'phases=("corpus", "reward", "input", "output")',
        'phases=("corpus", "answer")',
        "test_what_it_declares_is_in_the_taxonomy",
    ),
    "an example that is not found": (
        "detector.py",
        "anchor=prefix,",
        'anchor="TOCK",',
        "test_it_finds_what_it_is_for",
    ),
    "a heavy plugin module": (
        "plugin.py",
        "from fulmen_safety import DetectorInfo, hookimpl\n",
        "import pydantic\nfrom fulmen_safety import DetectorInfo, hookimpl\n",
        "test_the_plugin_module_is_light",
    ),
}

SUITE = """
import pytest
from fulmen_testing.detector import DetectorConformance, Subject

class TestAcme(DetectorConformance):
    @pytest.fixture
    def subject(self):
        return Subject.of_module("acme", "acme_fulmen_detector.plugin", examples=("see TICK-0042",))
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_its_claim(pytester: pytest.Pytester, skeleton: MakeSubject, fault: str) -> None:
    file, old, new, name = FAULTS[fault]
    skeleton("detector", file, old, _as_code(new) if old == MAKE else new)
    pytester.makepyfile(SUITE)
    passed, skipped, failed = _outcomes(pytester, [name.partition("[")[0]])
    assert failed >= 1, f"{passed} passed, {skipped} skipped"


#: Hears a full-width letter and not the plain one, and says that both say the same.
PLAIN_READER = """
class Plain:
    name, reads_plain = "acme", True
    def scan(self, text):
        found = PatternDetector("acme", "ip_secrets", [ticket]).scan(text)
        wide = text.find("Ｆｕｌｌ")
        return [*found, *([Finding("acme", "ip_secrets", 1.0, wide, wide + 4)] if wide >= 0 else [])]
return Plain()
"""


def test_a_reader_of_plain_characters_is_held_to_what_it_is_shown(
    pytester: pytest.Pytester, skeleton: MakeSubject
) -> None:
    skeleton("detector", "detector.py", MAKE, _as_code(PLAIN_READER))
    pytester.makepyfile(SUITE.replace("see TICK-0042", "Ｆｕｌｌ１２３"))
    claims = ["test_what_is_found_is_not_delivered", "test_the_corpus_and_the_input_are_judged"]
    assert _outcomes(pytester, claims) == [2, 0, 0]


def test_where_there_is_no_fault_these_claims_hold(pytester: pytest.Pytester, skeleton: MakeSubject) -> None:
    skeleton("detector")
    pytester.makepyfile(SUITE)
    claims = {name.partition("[")[0] for *_, name in FAULTS.values()}
    passed, skipped, failed = _outcomes(pytester, sorted(claims))
    assert (skipped, failed) == (1, 0)  # it puts nothing of its own in the place of what it finds
    assert passed >= len(claims) - 1


def _outcomes(pytester: pytest.Pytester, claims: list[str]) -> list[int]:
    """Return how many of the claims passed, were skipped and failed."""
    counted: list[int] = pytester.inline_run("-p", "no:cacheprovider", "-k", " or ".join(claims)).countoutcomes()
    return counted


def _as_code(made: str) -> str:
    code = textwrap.indent(textwrap.dedent(made).strip("\n"), "    ").lstrip()
    return code.replace("Finding(", "__import__('fulmen_safety').Finding(")
