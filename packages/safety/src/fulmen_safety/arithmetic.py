"""The detector ``arithmetic``: sums in an answer that do not hold. A check of accuracy that knows what was asked.

``12 * 7 = 85`` is reported; a chain (``1 + 2 + 3 = 6``), a sum inside a longer expression, a quotient rounded to the
digits that are shown, and an equation that the question already holds are not. Not in the default policy: name it, and
say what is done about ``specialized_advice``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, DivisionByZero, InvalidOperation

from fulmen_core.guard import Finding
from fulmen_safety.pattern import Pattern, chars, either, maybe, repeat, seq
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.settings import Table, read_settings

_DIGIT, _BLANK = chars("0-9"), chars(" ")
_OPERATORS = "+*/×÷x−-"
_CHAINED = rf"{_OPERATORS.replace('-', '')}=^\-"
_NUMBER = seq(repeat(_DIGIT, 1, 9), maybe(seq(chars("."), repeat(_DIGIT, 1, 4))))
_EQUATION = seq(
    _NUMBER,
    repeat(_BLANK, 0, 2),
    chars(rf"{_OPERATORS.replace('-', '')}\-"),
    repeat(_BLANK, 0, 2),
    _NUMBER,
    repeat(_BLANK, 0, 2),
    chars("="),
    repeat(_BLANK, 0, 2),
    _NUMBER,
)


class ArithmeticSettings(Table):
    """Settings of the detector ``arithmetic``: none."""


def make(settings: Mapping[str, object]) -> ArithmeticDetector:
    """Make the detector. Raises `UserError` for a setting, as it has none."""
    read_settings(ArithmeticSettings, settings, "the settings of the detector 'arithmetic'")
    return ArithmeticDetector()


class ArithmeticDetector:
    """Finds equations that do not hold. Streams exactly, as its pattern does.

    Args:
        asked: what the question holds; equations in it are quoted, not made.
    """

    name = "arithmetic"

    def __init__(self, asked: str = "") -> None:
        self._asked = "".join(asked.split())
        pattern = Pattern(
            "wrong sum",
            _EQUATION,
            anchor="=",
            not_before=(
                chars(rf"0-9A-Za-z_.,(){_CHAINED}"),
                seq(chars(_CHAINED), _BLANK),
            ),
            not_after=either(
                chars("0-9A-Za-z_%"),
                seq(chars(".,"), _DIGIT),
                seq(maybe(_BLANK), chars(_CHAINED)),
            ),
            accept=self._wrong,
        )
        self._patterns = PatternDetector(self.name, "specialized_advice", [pattern])
        self.look_behind = self._patterns.look_behind

    def in_context(self, messages: Sequence[Mapping[str, str]]) -> ArithmeticDetector:
        """Return the detector for an answer to `messages`; see `fulmen_safety.detector.InContext`."""
        return ArithmeticDetector("\n".join(message.get("content") or "" for message in messages))

    def scan(self, text: str) -> list[Finding]:
        """Return the equations in `text` that do not hold."""
        return self._patterns.scan(text)

    def hold_from(self, text: str) -> int:
        """Return the index from which `text` might still become an equation."""
        return self._patterns.hold_from(text)

    def _wrong(self, equation: str) -> float:
        return 0.0 if holds(equation) or "".join(equation.split()) in self._asked else 0.9


def holds(equation: str) -> bool:
    """Return whether ``A op B = C`` is true; a result is taken as rounded to the digits that it shows."""
    left, _, right = "".join(equation.split()).partition("=")
    place = next(at for at, char in enumerate(left) if char in _OPERATORS)
    one, other, told = Decimal(left[:place]), Decimal(left[place + 1 :]), Decimal(right)
    try:
        match left[place]:
            case "+":
                exact = one + other
            case "-" | "−":
                exact = one - other
            case "*" | "×" | "x":
                exact = one * other
            case _:
                exact = one / other
    except (DivisionByZero, InvalidOperation):
        return False
    step = Decimal(1).scaleb(int(told.as_tuple().exponent))
    rounded = "." in right
    return abs(exact - told) <= step / 2 if rounded else exact == told
