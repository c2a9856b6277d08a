"""Detectors to which a plain character says what the written one says are not shown both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fulmen_safety import Finding
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.learned.calibration import Curve
from fulmen_safety.learned.features import features
from fulmen_safety.learned.linear_model import NO_CATEGORIES, LinearModel
from fulmen_safety.learned.window_detector import WindowDetector
from fulmen_safety.text_scores import text_scores


class Reader:
    """Finds ``can't``, and keeps what it was shown."""

    name = "probe"
    reads_plain = True

    def __init__(self) -> None:
        self.read: list[str] = []

    def scan(self, text: str) -> list[Finding]:
        self.read.append(text)
        start = text.find("can't")
        return [Finding("probe", "privacy_pii", 1.0, start, start + 5)] if start >= 0 else []

    def scores(self, text: str) -> dict[str, float]:
        self.read.append(text)
        return {"privacy_pii": float("can't" in text)}


class Stream(Reader):
    """The same, of a stream."""

    look_behind = 5

    def hold_from(self, text: str) -> int:
        return max(0, len(text) - 4)


class Anything(Reader):
    """One that says nothing of the kind."""

    reads_plain = False


SIGNS = "Zoë — I can’t go"
PLAIN = "Zoe - I can't go"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("I can't go", ["I can't go"]),
        (SIGNS, [PLAIN]),
        ("網站打不開", ["网站打不开"]),
        (f"{SIGNS}\u200b!", [f"{SIGNS}\u200b!", f"{PLAIN}!"]),  # what was hidden there may itself say something
        ("c a n ’ t", ["c a n ' t", "can ' t"]),
    ],
)
def test_it_is_shown_the_plain_text_alone_where_each_character_has_a_plain_one(
    guard_with: Callable[..., RaiseGuard], text: str, read: list[str]
) -> None:
    reader = Reader()
    panel = guard_with(reader, alone=True).panel
    for phase in ("input", "corpus", "reward", "output"):
        reader.read.clear()
        panel.read(text, phase)
        assert reader.read[: len(read)] == read
        assert (text in reader.read) == (text in read)
    reader.read.clear()
    text_scores(panel, text, "input")
    assert reader.read[: len(read)] == read
    reader.read.clear()
    panel.examine(text)
    assert set(read) <= set(reader.read)
    assert (text in reader.read) == (text in read)


def test_what_it_finds_is_where_it_was_written(guard_with: Callable[..., RaiseGuard]) -> None:
    panel = guard_with(Reader(), alone=True).panel
    [found] = panel.read(f"Zoë — “{SIGNS}”", "input").findings
    assert f"Zoë — “{SIGNS}”"[found.start : found.end] == "can’t"
    assert panel.read(f"Zoë — “{SIGNS}”", "input").shown[0].text == f"Zoë — “{SIGNS}”"


@pytest.mark.parametrize("detector", [Anything, Stream])
def test_others_and_streams_are_shown_both(guard_with: Callable[..., RaiseGuard], detector: type[Reader]) -> None:
    reader = detector()
    guard_with(reader, alone=True).panel.read(SIGNS, "output")
    assert reader.read == [SIGNS, PLAIN]


def test_a_model_of_ones_own_hears_the_accents_that_it_learned(guard_with: Callable[..., RaiseGuard]) -> None:
    weights = np.zeros(1 << 12, np.int8)
    weights[features("tué").words[0][0] >> np.uint32(20)] = 127
    ones = np.ones(1, np.float32)
    curve = Curve(slope=1.0, offset=0.0, slope_interval=(1.0, 1.0), offset_interval=(0.0, 0.0), examples=0)
    model = LinearModel(weights, NO_CATEGORIES, ones, -ones, ("privacy_pii",), {"*": curve}, 40)
    for reads_plain, found in ((False, 1), (True, 0)):
        learned = WindowDetector("probe", model, 0.5, reads_plain=reads_plain)
        assert len(guard_with(learned, alone=True).panel.read("tué", "input").findings) == found
