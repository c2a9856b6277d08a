"""The kit about itself: claims say what they claim, and none can be left out in silence."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from fulmen_core.guard import Finding
from fulmen_testing.backend import BackendConformance
from fulmen_testing.claims import claims_of, left_out
from fulmen_testing.detector import DetectorConformance

STANDARDS = [BackendConformance, DetectorConformance]


@pytest.mark.parametrize("standard", STANDARDS)
def test_every_claim_is_a_sentence_in_one_paragraph(standard: type) -> None:
    told = {name: (claim.__doc__ or "").strip() for name, claim in claims_of(standard).items()}
    assert len(told) >= 15
    assert {name: text for name, text in told.items() if not text or text[0].islower() or "\n\n" in text} == {}
    assert len(set(told.values())) == len(told)


def test_a_claim_that_is_deleted_or_replaced_is_named_and_an_xfail_with_a_reason_is_not() -> None:
    class Deletes(DetectorConformance):
        test_strange_characters_do_not_break_it = None  # type: ignore[assignment]

        def test_it_finds_what_it_is_for(self) -> None:  # type: ignore[override]
            """It is not for anything"""

        @pytest.mark.xfail(reason="")
        def test_repetition_costs_no_more(self) -> None:  # type: ignore[override]
            """It does"""

        @pytest.mark.xfail(reason="the library counts bytes: its issue 12")
        def test_spans_scores_and_categories_are_valid(self, **given: Any) -> None:  # type: ignore[override]
            """They are not yet"""

    assert left_out(Deletes, DetectorConformance) == [
        "test_it_finds_what_it_is_for",
        "test_repetition_costs_no_more",
        "test_strange_characters_do_not_break_it",
    ]
    with pytest.raises(AssertionError):
        Deletes().test_no_claim_is_left_out()


@pytest.mark.parametrize("standard", STANDARDS)
def test_a_class_that_adds_fixtures_and_tests_leaves_nothing_out(standard: type) -> None:
    assert left_out(type("More", (standard,), {"subject": object(), "test_more": object()}), standard) == []


class FindsLetters:
    """Finds single letters, and puts what it is told in their place."""

    name = "letters"

    def __init__(self, stand_in: str) -> None:
        self._stand_in = stand_in

    def scan(self, text: str) -> list[Finding]:
        return [Finding(self.name, "privacy_pii", 1.0, place, place + 1, "address") for place in range(len(text))]

    def replacement(self, found: str, finding: Finding) -> str:
        del finding
        return self._stand_in.format(found)


def test_a_stand_in_reveals_what_was_found_unless_the_name_of_its_kind_has_it() -> None:
    claim = DetectorConformance().test_what_stands_in_for_a_finding_does_not_reveal_it
    claim(FindsLetters("[ADDRESS]"), ["E"])  # of every address it says the same
    for found in ("Q", "E"):
        with pytest.raises(AssertionError):
            claim(FindsLetters("[ADDRESS {}]"), [found])


def test_installing_the_kit_changes_no_run_of_pytest() -> None:
    code = (
        "from importlib.metadata import distribution;"
        "print(sorted({point.group for point in distribution('fulmen-testing').entry_points}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['fulmen.commands.v1']"


def test_claims_about_detectors_need_no_torch() -> None:
    code = (
        "import sys, fulmen_testing.suites.detector, fulmen_testing.cli.conform;"
        "print([name for name in ('torch', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
