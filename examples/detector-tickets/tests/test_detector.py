"""The detector against its contract, and what it finds."""

from __future__ import annotations

import pytest
from fulmen_testing.detector import DetectorConformance, Subject

from tickets_fulmen_detector.detector import make


class TestTickets(DetectorConformance):
    """All claims. One that does not hold yet is overridden with ``@pytest.mark.xfail(reason="...")``."""

    @pytest.fixture
    def subject(self) -> Subject:
        """What is tested: the detector, and texts in which it must find something."""
        examples = ("see TICK-0042", "见工单TICK-00421处理")
        return Subject.of_module("tickets", "tickets_fulmen_detector.plugin", examples=examples)


def test_a_ticket_glued_to_chinese_is_found() -> None:
    assert [(found.start, found.end) for found in make({}).scan("见工单TICK-0042处理")] == [(3, 12)]


def test_what_only_looks_like_a_ticket_is_not() -> None:
    assert make({}).scan("TICK-004, STICK-0042, TICK-00421234, tick-0042") == []
