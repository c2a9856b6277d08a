"""Postal addresses that their form gives away: English ones by number and street, Chinese ones by province, road and
number. What else names a place is the learned tagger's (`fulmen_raise_pii.names`)."""

from __future__ import annotations

from collections.abc import Iterable

from fulmen_safety.pattern import Node, Pattern, chars, either, literal, maybe, repeat, seq

_DIGIT = chars("0-9")
_LETTER = chars("A-Za-z")
_WORD = chars("0-9A-Za-z")
_HAN = chars("\u4e00-\u9fff")

_STREET_WORDS = (
    "Street", "St", "Road", "Rd", "Avenue", "Ave", "Lane", "Ln", "Drive", "Dr", "Court", "Ct", "Square", "Sq", "Place",
    "Pl", "Boulevard", "Blvd", "Terrace", "Highway", "Hwy", "Parkway", "Pkwy", "Crescent", "Close", "Way", "Circle",
)  # fmt: skip
_STATES = """
AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR
PA RI SC SD TN TX UT VT VA WA WV WI WY DC
"""
_PROVINCES = (
    "北京", "天津", "河北", "山西", "内蒙古", "辽宁", "吉林", "黑龙江", "上海", "江苏", "浙江", "安徽", "福建", "江西",
    "山东", "河南", "湖北", "湖南", "广东", "广西", "海南", "重庆", "四川", "贵州", "云南", "西藏", "陕西", "甘肃",
    "青海", "宁夏", "新疆", "香港", "澳门", "台湾",
)  # fmt: skip
_CITIES = (
    "广州", "深圳", "珠海", "东莞", "佛山", "杭州", "宁波", "温州", "南京", "苏州", "无锡", "常州", "成都", "武汉",
    "西安", "长沙", "郑州", "青岛", "济南", "大连", "沈阳", "哈尔滨", "长春", "厦门", "福州", "合肥", "昆明", "南昌",
    "贵阳", "南宁", "太原", "石家庄", "兰州", "海口", "乌鲁木齐", "呼和浩特", "银川", "西宁", "拉萨",
)  # fmt: skip

_ANNOUNCING = ("住址", "地址", "住所", "家住", "住在", "寄到", "寄往", "送到", "户籍所在地")


def address() -> list[Pattern]:
    """English street addresses and post boxes, Chinese addresses down to a road or a number."""
    return [_english_street(), _post_box(), *_chinese()]


def _english_street() -> Pattern:
    """``221B Baker Street, Apt 4, London``: number, capitalised words, a word for street, then what belongs to it."""
    word = seq(chars("A-Z"), repeat(chars("a-z'’"), 0, 14), maybe(literal(".")))
    ordinal = seq(repeat(_DIGIT, 1, 3), either(*map(literal, ("st", "nd", "rd", "th"))))
    name = repeat(seq(either(word, ordinal), repeat(chars(" "), 1, 2)), 1, 4)
    unit = seq(
        repeat(chars(" ,\n"), 1, 3),
        either(*map(literal, ("Apt", "Apartment", "Suite", "Ste", "Unit", "Floor", "#"))),
        repeat(chars(" .#"), 0, 2),
        _WORD,
        repeat(_WORD, 0, 4),
    )
    city = seq(repeat(chars(" ,\n"), 1, 3), word, repeat(seq(literal(" "), word), 0, 2))
    state = seq(repeat(chars(" ,\n"), 1, 3), _any(_STATES.split()))
    code = seq(literal(" "), repeat(_DIGIT, 5, 5), maybe(seq(literal("-"), repeat(_DIGIT, 4, 4))))
    body = seq(
        repeat(_DIGIT, 1, 5),
        maybe(chars("A-Za-z")),
        literal(" "),
        name,
        _any(_STREET_WORDS),
        maybe(unit),
        maybe(seq(maybe(city), state, maybe(code))),
    )

    def accept(_: str) -> float:
        return 0.75

    return Pattern(
        "address",
        body,
        "[0-9][A-Za-z]? [A-Z0-9]",
        not_before=(chars("0-9A-Za-z.,$€£-"),),
        not_after=_LETTER,
        accept=accept,
    )


def _post_box() -> Pattern:
    body = seq(
        either(*(literal(form, ignore_case=True) for form in ("P.O. Box", "PO Box", "P.O.Box", "Post Office Box"))),
        literal(" "),
        repeat(_DIGIT, 1, 6),
    )
    return Pattern("address", body, "[Bb][Oo][Xx] [0-9]", not_before=(_LETTER,), not_after=_WORD)


def _chinese() -> list[Pattern]:
    """A place known by name or an announced one, then two or more divisions, the last a road, a number or a room."""
    number = seq(
        chars("0-9A-Za-z一二三四五六七八九十"),
        repeat(chars("0-9A-Za-z一二三四五六七八九十-"), 0, 5),
        either(
            *map(literal, ("号院", "号楼", "号", "栋", "幢", "座", "单元", "楼", "层", "室", "房", "弄", "组", "门"))
        ),
    )
    named = seq(
        repeat(_HAN, 1, 6),
        either(*map(literal, ("省", "市", "区", "县", "旗", "镇", "乡", "村", "街道", "路", "街", "大道", "巷", "胡同",
                              "小区", "花园", "大厦", "广场", "公寓", "自治区", "自治州", "开发区", "新区"))),
    )  # fmt: skip
    rest = seq(repeat(named, 0, 6), repeat(number, 1, 5), maybe(either(literal("院内"), literal("院"))))
    roads = seq(repeat(named, 2, 6), repeat(number, 0, 5))

    def accept(found: str) -> float:
        if any(char in found for char in "，。！？的了是在"):
            return 0.0
        return 0.9 if any(char.isdigit() for char in found) else 0.6

    announced = seq(
        _any(_ANNOUNCING),
        maybe(either(literal("是"), literal("为"))),
        repeat(chars(" :："), 0, 2),
    )
    place = _any((*_PROVINCES, *_CITIES))
    tail = either(rest, roads)
    return [
        Pattern("address", seq(place, maybe(chars("省市")), tail), "|".join((*_PROVINCES, *_CITIES)), accept=accept),
        Pattern("address", tail, "|".join(_ANNOUNCING), context=announced, accept=accept),
    ]


def _any(words: Iterable[str]) -> Node:
    """One of the words, the longest that fits."""
    return either(*map(literal, sorted(words, key=len, reverse=True)))
