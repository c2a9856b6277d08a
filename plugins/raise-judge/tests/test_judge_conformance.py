"""Both detectors meet the contract of every detector, against a real server."""

from __future__ import annotations

import pytest

from fulmen_testing.detector import DetectorConformance
from fulmen_testing.subject import Subject

EXAMPLES = ("plan an attack", "an attack. and more of it")


class TestJudge(DetectorConformance):
    @pytest.fixture
    def subject(self, shared_server) -> Subject:
        settings = {"url": shared_server.url, "model": "guard", "seconds": 20, "style": "llama-guard"}
        return Subject.of_module("judge", "fulmen_raise_judge.plugin", settings=settings, examples=EXAMPLES)


class TestJudgeAnswer(DetectorConformance):
    @pytest.fixture
    def subject(self, shared_server) -> Subject:
        settings = {"url": shared_server.url, "model": "guard", "seconds": 20}
        return Subject.of_module("judge-answer", "fulmen_raise_judge.plugin", settings=settings, examples=EXAMPLES)
