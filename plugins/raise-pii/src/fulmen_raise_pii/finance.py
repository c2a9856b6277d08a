"""Bank cards and bank accounts."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib import resources

from fulmen_raise_pii.check_digits import iban as iban_is_consistent
from fulmen_raise_pii.check_digits import luhn
from fulmen_safety.pattern import Pattern, chars, either, literal, maybe, repeat, seq

_DIGIT = chars("0-9")

#: Issuer -> ranges of the first digits, and lengths in use.
_ISSUERS: tuple[tuple[tuple[tuple[str, str], ...], tuple[int, ...]], ...] = (
    ((("4", "4"),), (13, 16, 19)),  # Visa
    ((("51", "55"), ("2221", "2720")), (16,)),  # Mastercard
    ((("34", "34"), ("37", "37")), (15,)),  # American Express
    ((("62", "62"), ("81", "81")), (16, 17, 18, 19)),  # UnionPay
    ((("6011", "6011"), ("644", "649"), ("65", "65")), (16, 17, 18, 19)),  # Discover
    ((("35", "35"),), (16, 17, 18, 19)),  # JCB
    ((("2131", "2131"), ("1800", "1800")), (15,)),  # JCB, older
    ((("300", "305"), ("36", "36"), ("38", "39")), (14,)),  # Diners Club
    # Maestro
    (
        (("5018", "5018"), ("5020", "5020"), ("5038", "5038"), ("56", "58"), ("6304", "6304"), ("6759", "6763")),
        (12, 13, 16, 18, 19),
    ),
    # older mainland debit cards
    ((("60", "60"), ("95", "95"), ("99", "99")), (16, 18, 19)),
)


#: Numbers that payment services publish for tests: no account is behind them.
_TEST_CARDS = """
4111111111111111 4242424242424242 4000056655665556 4012888888881881 4222222222222 4917610000000000
5555555555554444 5105105105105100 5200828282828210 2223003122003222 2223000048400011 378282246310005
371449635398431 378734493671000 341134113411347 6011111111111117 6011000990139424 6011000000000004
30569309025904 38520000023237 36227206271667 3566002020360505 3530111333300000 6200000000000005
6200000000000047 6205500000000000004 6759649826438453
"""


def bank_card(*, reserved: bool = True) -> list[Pattern]:
    """Card numbers of the large issuers: first digits, length and Luhn digit. One pattern for each length. Published
    test numbers are found only if `reserved`.

    A longer run may begin with a shorter number (``4111 1111 1111 1111 123``), which the longest match would miss.
    """
    lengths = sorted({length for _, lengths in _ISSUERS for length in lengths})
    spaced = seq(maybe(chars(" -")), _DIGIT)
    return [
        Pattern(
            "bank_card",
            seq(chars("1-689"), repeat(spaced, length - 1, length - 1)),
            anchor="[0-9](?:[ -]?[0-9]){11}",
            not_before=(_DIGIT, seq(_DIGIT, literal("."))),
            not_after=chars("0-9A-Za-z"),
            accept=_card_of(length, reserved),
        )
        for length in lengths
    ]


def _card_of(length: int, reserved: bool) -> Callable[[str], float]:
    test_cards = frozenset() if reserved else frozenset(_TEST_CARDS.split())
    prefixes = [prefix for prefixes, lengths in _ISSUERS if length in lengths for prefix in prefixes]

    def accept(found: str) -> float:
        digits = found.replace(" ", "").replace("-", "")
        issued = any(low <= digits[: len(low)] <= high for low, high in prefixes)
        if digits in test_cards:
            return 0.0
        return 1.0 if issued and luhn(digits) and len(set(digits)) > 1 else 0.0

    return accept


def iban() -> list[Pattern]:
    """International bank account numbers: the country's length and the check digits. Blanks in groups of four are
    allowed."""
    lengths: dict[str, int] = tomllib.loads((resources.files("fulmen_raise_pii") / "data/iban.toml").read_text("utf-8"))
    by_length: dict[int, list[str]] = {}
    for country, length in sorted(lengths.items()):
        by_length.setdefault(length, []).append(country)

    def accept(found: str) -> float:
        return 1.0 if iban_is_consistent(found.replace(" ", "")) else 0.0

    rest = seq(maybe(literal(" ")), chars("0-9A-Za-z"))
    body = either(
        *(
            seq(
                either(*(literal(country, ignore_case=True) for country in countries)),
                repeat(_DIGIT, 2, 2),
                repeat(rest, length - 4, length - 4),
            )
            for length, countries in sorted(by_length.items())
        )
    )
    word = chars("0-9A-Za-z")
    return [Pattern("iban", body, "[A-Za-z][A-Za-z][0-9]{2}", not_before=(word,), not_after=word, accept=accept)]
