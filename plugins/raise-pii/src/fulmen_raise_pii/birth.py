"""Dates of birth: a date right after words that announce one."""

from __future__ import annotations

from fulmen_safety.pattern import Node, Pattern, chars, either, literal, maybe, repeat, seq

_DIGIT = chars("0-9")
_WORD = chars("0-9A-Za-z")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sept", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


def birth_date() -> list[Pattern]:
    """``born on 3 May 1980``, ``DOB: 05/03/1980``, ``出生日期：1980年5月3日``."""
    month = either(*(literal(name, ignore_case=True) for name in _MONTHS))
    ordinal = maybe(either(*map(literal, ("st", "nd", "rd", "th"))))
    day, year = repeat(_DIGIT, 1, 2), repeat(_DIGIT, 4, 4)
    numeric = seq(repeat(_DIGIT, 1, 4), chars("-/."), day, chars("-/."), repeat(_DIGIT, 2, 4))
    day_first = seq(
        day, ordinal, literal(" "), maybe(literal("of ")), month, maybe(literal(".")), repeat(chars(" ,"), 1, 2), year
    )
    month_first = seq(month, maybe(literal(".")), literal(" "), day, ordinal, repeat(chars(" ,"), 1, 2), year)
    chinese_date = seq(
        year, literal("年"), repeat(_DIGIT, 1, 2), literal("月"), maybe(seq(day, either(literal("日"), literal("号"))))
    )
    date: Node = either(day_first, month_first, chinese_date, numeric, repeat(_DIGIT, 8, 8))
    english = seq(
        either(
            *(literal(words, ignore_case=True) for words in ("date of birth", "birth date", "birthdate", "birthday",
                                                             "dob", "d.o.b.", "born on", "born"))
        ),
        repeat(chars(" :."), 0, 2),
        maybe(seq(either(literal("is"), literal("it's"), literal("was")), repeat(chars(" :"), 1, 2))),
        maybe(literal("on ")),
    )  # fmt: skip
    chinese = seq(
        either(*map(literal, ("出生日期", "出生年月日", "出生年月", "生日", "生于", "出生于", "出生"))),
        maybe(either(literal("是"), literal("为"), literal("在"))),
        repeat(chars(" :："), 0, 2),
    )
    after = either(_WORD, seq(chars("-/."), _DIGIT))
    return [
        Pattern(
            "birth_date",
            date,
            r"(?i:birth|born|dob|d\.o\.b)",
            context=english,
            not_before=(chars("A-Za-z"),),
            not_after=after,
        ),
        Pattern("birth_date", date, "出生|生日|生于", context=chinese, not_after=after),
        Pattern("birth_date", seq(chinese_date, maybe(literal("出生"))), "日出生|月出生|日生", accept=_ends_in_birth),
    ]


def _ends_in_birth(found: str) -> float:
    return 0.9 if found.endswith("出生") else 0.0
