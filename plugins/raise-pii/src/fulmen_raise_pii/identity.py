"""Numbers that identify a person or an organisation: resident ID, credit code, passport, US social security number."""

from __future__ import annotations

import datetime

from fulmen_raise_pii.check_digits import CREDIT_CODE_CHARACTERS, credit_check, resident_check
from fulmen_raise_pii.regions import provinces, region_score
from fulmen_safety.pattern import Pattern, chars, either, literal, maybe, repeat, seq

_DIGIT = chars("0-9")
_WORD = chars("0-9A-Za-z")
_SPACED_DIGIT = seq(maybe(chars(" -")), _DIGIT)


def resident_id() -> list[Pattern]:
    """Mainland resident IDs of 18 characters: region in use at some time, real date of birth, check digit (GB
    11643-1999); and those of 15 digits, issued until 1999, by region and date where they are announced.
    """

    def accept(found: str) -> float:
        number = _bare(found)
        if number[-1] != resident_check(number[:17]) or not _is_birthday(number[6:14]):
            return 0.0
        return region_score(number[:6])

    def accept_old(found: str) -> float:
        return region_score(found[:6]) * 0.9 if _is_birthday("19" + found[6:12]) else 0.0

    body = seq(chars("1-8"), repeat(_SPACED_DIGIT, 16, 16), maybe(chars(" -")), chars("0-9Xx"))
    anchor = "[0-9](?:[ -]?[0-9]){12}"
    announced = seq(
        either(literal("身份证"), literal("证件")),
        maybe(either(literal("号码"), literal("号"), literal("编号"))),
        maybe(either(literal("是"), literal("为"))),
        repeat(chars(" :："), 0, 2),
    )
    old = repeat(_DIGIT, 15, 15)
    return [
        Pattern("resident_id", body, anchor, not_before=(_WORD,), not_after=_WORD, accept=accept),
        Pattern("resident_id", old, "身份证|证件", context=announced, not_after=_WORD, accept=accept_old),
    ]


def credit_code() -> list[Pattern]:
    """Unified social credit codes of organisations and sole traders (GB 32100-2015): registrar, region, check
    character."""
    known = {*provinces(), "10", "71"}

    def accept(found: str) -> float:
        return 1.0 if found[2:4] in known and found[-1] == credit_check(found[:17]) else 0.0

    code = chars(CREDIT_CODE_CHARACTERS)
    body = seq(chars("1-9A-HJNPY"), code, repeat(_DIGIT, 6, 6), repeat(code, 10, 10))
    return [Pattern("credit_code", body, "[0-9][0-9]{5}", not_before=(_WORD,), not_after=_WORD, accept=accept)]


def passport() -> list[Pattern]:
    """Mainland passports by their form, and any passport number that is announced as one."""
    mainland = either(
        seq(chars("EGDSP"), repeat(_DIGIT, 8, 8)),
        seq(literal("E"), chars("A-HJ-NP-Z"), repeat(_DIGIT, 7, 7)),
        seq(chars("DSP"), literal("E"), repeat(_DIGIT, 7, 7)),
    )
    announced = seq(repeat(chars("A-Z"), 0, 2), repeat(_DIGIT, 6, 9))
    english = seq(
        literal("passport", ignore_case=True),
        maybe(seq(literal(" "), either(*(literal(word, ignore_case=True) for word in ("number", "no.", "no", "id"))))),
        repeat(chars(" :#"), 0, 2),
        maybe(seq(literal("is"), repeat(chars(" :"), 1, 2))),
    )
    chinese = seq(
        literal("护照"),
        maybe(either(literal("号码"), literal("号"), literal("编号"))),
        maybe(either(literal("是"), literal("为"))),
        repeat(chars(" :："), 0, 2),
    )

    def by_form(_: str) -> float:
        return 0.6

    return [
        Pattern("passport", mainland, "[0-9][0-9]{6}", not_before=(_WORD,), not_after=_WORD, accept=by_form),
        Pattern("passport", announced, "[Pp][Aa][Ss]{2}", context=english, not_before=(_WORD,), not_after=_WORD),
        Pattern("passport", announced, "护照", context=chinese, not_after=_WORD),
    ]


def us_ssn() -> list[Pattern]:
    """US social security numbers: separated alike, or announced; never those that are not issued."""

    def accept(found: str) -> float:
        digits = "".join(char for char in found if char.isdigit())
        unissued = digits[:3] in ("000", "666") or digits[0] == "9" or digits[3:5] == "00" or digits[5:] == "0000"
        return 0.0 if unissued else 0.9

    def separated(by: str) -> Pattern:
        body = seq(repeat(_DIGIT, 3, 3), literal(by), repeat(_DIGIT, 2, 2), literal(by), repeat(_DIGIT, 4, 4))
        anchor = f"[0-9][0-9]{{2}}{by}[0-9]{{2}}{by}"
        after = either(_WORD, seq(chars(" -"), _DIGIT))
        return Pattern("us_ssn", body, anchor, not_before=(chars("0-9A-Za-z.-"),), not_after=after, accept=accept)

    announced = seq(
        either(literal("ssn", ignore_case=True), literal("social security", ignore_case=True)),
        maybe(seq(literal(" "), either(literal("number", ignore_case=True), literal("no.", ignore_case=True)))),
        repeat(chars(" :#"), 0, 2),
        maybe(seq(literal("is"), repeat(chars(" :"), 1, 2))),
    )
    bare = Pattern(
        "us_ssn",
        repeat(_DIGIT, 9, 9),
        "[0-9][0-9]{8}",
        context=announced,
        not_before=(_WORD,),
        not_after=_WORD,
        accept=accept,
    )
    return [separated("-"), separated(" "), bare]


def _bare(found: str) -> str:
    return found.replace(" ", "").replace("-", "").upper()


def _is_birthday(digits: str) -> bool:
    try:
        date = datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return 1850 <= date.year <= 2099
