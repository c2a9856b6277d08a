"""Travel permits, identity cards of Hong Kong and Taiwan, driving licences, number plates."""

from __future__ import annotations

from fulmen_raise_pii.check_digits import hong_kong_check, taiwan_check
from fulmen_safety.pattern import Node, Pattern, chars, either, literal, maybe, repeat, seq

_DIGIT = chars("0-9")
_WORD = chars("0-9A-Za-z")

#: First characters of a number plate: the provinces.
_PLATE_PROVINCES = "京津冀晋蒙辽吉黑沪苏浙皖闽赣鲁豫鄂湘粤桂琼渝川贵云藏陕甘青宁新"

_NUMBER_WORD_ZH: Node = seq(
    maybe(either(literal("号码"), literal("号"), literal("编号"))),
    maybe(either(literal("是"), literal("为"))),
    repeat(chars(" :："), 0, 2),
)
_NUMBER_WORD_EN: Node = seq(
    maybe(seq(literal(" "), either(*(literal(word, ignore_case=True) for word in ("number", "no.", "no", "#"))))),
    repeat(chars(" :#"), 0, 2),
    maybe(seq(literal("is"), repeat(chars(" :"), 1, 2))),
)


def permit() -> list[Pattern]:
    """Mainland travel permits: of residents of Hong Kong and Macau (H, M), to these (C, W) and to Taiwan (T, L), of
    residents of Taiwan (eight digits), the permanent residence card of foreigners. All but the last need to be
    announced.
    """
    announced = seq(
        either(*(literal(word) for word in ("通行证", "回乡证", "台胞证", "居留证", "居住证"))),
        _NUMBER_WORD_ZH,
    )
    english = seq(literal("permit", ignore_case=True), _NUMBER_WORD_EN)
    body = either(seq(chars("CHMWTL"), repeat(_DIGIT, 8, 10)), repeat(_DIGIT, 8, 10))
    card = seq(repeat(chars("A-Z"), 3, 3), repeat(_DIGIT, 12, 12))

    def by_form(found: str) -> float:
        month, day = int(found[9:11]), int(found[11:13])  # region, serial, then date of birth in six digits
        return 0.6 if 1 <= month <= 12 and 1 <= day <= 31 else 0.0

    return [
        Pattern(
            "permit", body, "通行证|回乡证|台胞证|居留证|居住证", context=announced, not_after=_WORD, accept=_surely
        ),
        Pattern("permit", body, "[Pp][Ee][Rr][Mm]", context=english, not_before=(_WORD,), not_after=_WORD),
        Pattern("permit", card, "[A-Z][A-Z]{2}[0-9]{6}", not_before=(_WORD,), not_after=_WORD, accept=by_form),
    ]


def regional_id() -> list[Pattern]:
    """Identity cards of Hong Kong and of Taiwan, by their check digits."""

    def accept_hong_kong(found: str) -> float:
        bare = "".join(char for char in found if char.isalnum())
        return 0.95 if hong_kong_check(bare[:-1]) == bare[-1] else 0.0

    def accept_taiwan(found: str) -> float:
        return 0.9 if taiwan_check(found[:9]) == found[9] else 0.0

    hong_kong = seq(repeat(chars("A-Z"), 1, 2), repeat(_DIGIT, 6, 6), literal("("), chars("0-9A"), literal(")"))
    taiwan = seq(chars("A-Z"), chars("1289"), repeat(_DIGIT, 8, 8))
    return [
        Pattern("regional_id", hong_kong, r"[0-9][0-9]{5}\(", not_before=(_WORD,), accept=accept_hong_kong),
        Pattern("regional_id", taiwan, "[A-Z][1289]", not_before=(_WORD,), not_after=_WORD, accept=accept_taiwan),
    ]


def driver_license() -> list[Pattern]:
    """Driving licences where they are announced; their forms are those of many other numbers."""
    english = seq(
        either(
            literal("driver", ignore_case=True),
            literal("drivers", ignore_case=True),
            literal("driver's", ignore_case=True),
            literal("driver’s", ignore_case=True),
            literal("driving", ignore_case=True),
        ),
        literal(" "),
        either(literal("license", ignore_case=True), literal("licence", ignore_case=True)),
        _NUMBER_WORD_EN,
    )
    chinese = seq(either(literal("驾驶证"), literal("驾照")), _NUMBER_WORD_ZH)
    body = seq(repeat(chars("A-Z"), 0, 2), repeat(seq(maybe(literal("-")), _DIGIT), 5, 18))
    return [
        Pattern("driver_license", body, "[Dd][Rr][Ii][Vv]", context=english, not_before=(_WORD,), not_after=_WORD),
        Pattern("driver_license", body, "驾驶证|驾照", context=chinese, not_after=_WORD),
    ]


def number_plate() -> list[Pattern]:
    """Mainland number plates: province, office, five characters or six (electric)."""
    mark = chars("A-HJ-NP-Z0-9")
    body = seq(chars(_PLATE_PROVINCES), chars("A-HJ-NP-Z"), maybe(chars("·. ")), repeat(mark, 5, 6))

    def accept(found: str) -> float:
        return 0.8 if sum(char in "0123456789" for char in found) >= 3 else 0.0

    return [Pattern("number_plate", body, f"[{_PLATE_PROVINCES}][A-HJ-NP-Z]", not_after=_WORD, accept=accept)]


def _surely(_: str) -> float:
    return 0.95
