"""Phone numbers: international, mainland China, North America, and any that is announced as one."""

from __future__ import annotations

from fulmen_safety.pattern import Node, Pattern, chars, either, literal, maybe, repeat, seq

_DIGIT = chars("0-9")
_SEPARATOR = chars(" .-")
_EXTENSION = maybe(
    seq(maybe(literal(" ")), either(literal("ext."), literal("ext"), literal("x")), repeat(_DIGIT, 1, 5))
)

#: At least seven digits, perhaps separated: most text has nothing like it.
_SEVEN_DIGITS = r"[0-9](?:[ .()-]{0,2}[0-9]){6}"

#: Score of a number that only its digits speak for. Under the default threshold; lower it to find those too.
BARE = 0.4


def phone(*, reserved: bool) -> list[Pattern]:
    """Every way of writing a phone number. Numbers kept for fiction (555-0100 to 0199) are found only if `reserved`."""
    return [
        _international(reserved),
        _china_mobile(),
        _china_landline(),
        _north_american(reserved),
        _trunk_zero(),
        *_announced(),
    ]


def _international(reserved: bool) -> Pattern:
    def accept(found: str) -> float:
        digits = _digits(found)
        if len(digits) < 8 or not _may_count(digits, reserved):
            return 0.0
        return 1.0 if len(digits) >= 10 or len(digits) + 1 < len(found) else BARE  # +12345678 may be a sum

    body = seq(literal("+"), chars("1-9"), repeat(seq(repeat(chars(" .()-"), 0, 2), _DIGIT), 6, 14))
    return Pattern(
        "phone", body, _SEVEN_DIGITS, not_before=(chars("0-9A-Za-z+)"),), not_after=chars("0-9A-Za-z"), accept=accept
    )


def _china_mobile() -> Pattern:
    prefix = maybe(seq(either(literal("+86"), literal("0086"), literal("86")), maybe(chars(" -"))))
    number = seq(literal("1"), maybe(chars(" -")), chars("3-9"), repeat(seq(maybe(chars(" -")), _DIGIT), 9, 9))
    return Pattern(
        "phone",
        seq(prefix, number),
        _SEVEN_DIGITS,
        not_before=(chars("0-9A-Za-z_"), seq(_DIGIT, literal("."))),
        not_after=chars("0-9A-Za-z_"),
    )


def _china_landline() -> Pattern:
    def accept(found: str) -> float:
        return BARE if found.isdigit() else 1.0

    area = seq(
        literal("0"),
        either(literal("10"), seq(literal("2"), chars("0-57-9")), seq(chars("3-9"), _DIGIT, _DIGIT)),
    )
    number = seq(chars("2-8"), repeat(_DIGIT, 6, 7))
    body = seq(maybe(literal("(")), area, maybe(literal(")")), repeat(chars(" -"), 0, 2), number)
    return Pattern(
        "phone",
        body,
        _SEVEN_DIGITS,
        not_before=(chars("0-9A-Za-z."),),
        not_after=chars("0-9A-Za-z"),
        accept=accept,
    )


def _north_american(reserved: bool) -> Pattern:
    """Three, three and four digits. Outside of the numbering plan (a first 0 or 1) the form alone speaks for it."""

    def accept(found: str) -> float:
        digits = _digits(found.lower().partition("x")[0])[-10:]
        if not _may_count("1" + digits, reserved):
            return 0.0
        planned = digits[0] >= "2" and digits[3] >= "2"
        if found.isdigit():
            return BARE if planned else 0.0
        return 1.0 if planned else 0.6

    prefix = maybe(seq(either(literal("+1"), literal("001"), literal("1")), repeat(_SEPARATOR, 0, 2)))
    area = seq(maybe(literal("(")), repeat(_DIGIT, 3, 3), maybe(literal(")")), repeat(_SEPARATOR, 0, 2))
    number = seq(repeat(_DIGIT, 3, 3), maybe(_SEPARATOR), repeat(_DIGIT, 4, 4))
    return Pattern(
        "phone",
        seq(prefix, area, number, _EXTENSION),
        _SEVEN_DIGITS,
        not_before=(chars("0-9A-Za-z.+-"),),
        not_after=either(chars("0-9A-Za-z"), seq(chars(".-"), _DIGIT)),
        accept=accept,
    )


def _trunk_zero() -> Pattern:
    """National numbers of many countries: a first 0, then groups that one kind of separator divides, 9 to 11 digits
    in all.
    """

    def accept(found: str) -> float:
        return 0.6 if 9 <= len(_digits(found)) <= 11 else 0.0

    area = seq(maybe(literal("(")), literal("0"), chars("1-9"), repeat(_DIGIT, 0, 3), maybe(literal(")")))
    groups = either(*(repeat(seq(literal(by), repeat(_DIGIT, 2, 8)), 1, 4) for by in " -."))
    return Pattern(
        "phone",
        seq(area, groups),
        _SEVEN_DIGITS,
        not_before=(chars("0-9A-Za-z+"), seq(_DIGIT, chars(" .,/-"))),
        not_after=either(chars("0-9A-Za-z"), seq(chars(" .,/-"), _DIGIT)),
        accept=accept,
    )


def _announced() -> list[Pattern]:
    """A number of seven to fifteen digits right after a word for phone, in whatever national form."""

    def accept(found: str) -> float:
        return 0.9 if 7 <= len(_digits(found)) <= 15 else 0.0

    words = ("telephone", "phone", "tel", "mobile", "cell", "fax", "whatsapp", "call", "dial", "ring")
    english: Node = seq(
        either(*(literal(word, ignore_case=True) for word in words)),
        maybe(seq(literal(" "), either(*(literal(word) for word in ("number", "no.", "me", "us", "him", "her"))))),
        repeat(chars(" :.#"), 0, 3),
        maybe(seq(either(literal("is"), literal("at"), literal("on")), repeat(chars(" :"), 1, 2))),
    )
    chinese = seq(
        either(*(literal(word) for word in ("电话", "手机", "联系方式", "传真", "座机"))),
        maybe(either(literal("号码"), literal("号"))),
        maybe(either(literal("是"), literal("为"))),
        repeat(chars(" :：."), 0, 2),
    )
    number = seq(chars("(+0-9"), repeat(seq(repeat(chars(" .()/-"), 0, 2), _DIGIT), 6, 14))
    letter = chars("A-Za-z")
    return [
        Pattern(
            "phone",
            number,
            _SEVEN_DIGITS,
            context=context,
            not_before=(letter,),
            not_after=chars("0-9A-Za-z"),
            accept=accept,
        )
        for context in (english, chinese)
    ]


def _digits(found: str) -> str:
    return "".join(char for char in found if char.isdigit())


def _may_count(digits: str, reserved: bool) -> bool:
    fiction = len(digits) == 11 and digits[0] == "1" and digits[4:9] == "55501"
    return reserved or not fiction
