from __future__ import annotations

import time
import timeit
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_raise_pii.detector import PiiDetector, make
from fulmen_raise_pii.replacement import mask
from fulmen_safety import UserError
from fulmen_safety.conformance import faults
from fulmen_safety.detector import Redactor, StreamingDetector
from fulmen_safety.normalise import views

SAMPLES = {
    "email": ["john.doe@mail.co.uk", "a+b@sub.domain.org", "x_1@qq.com"],
    "phone": [
        "13800138000",
        "138-0013-8000",
        "138 0013 8000",
        "+86 138 0013 8000",
        "010-62345678",
        "(0755) 26543210",
        "+44 20 7946 0958",
        "+1 (212) 555-7788",
        "212-555-7788",
        "(212) 555-7788",
        "212.555.7788 x42",
        "01.84.17.61.18",
    ],
    "resident_id": ["11010519491231002X", "11010519491231002x", "110105 19491231 002X"],
    "credit_code": ["91350100M000100Y43"],
    "bank_card": [
        "4111 1111 1111 1111",
        "4111111111111111",
        "5555-5555-5555-4444",
        "6222021234567890128",
        "378282246310005",
    ],
    "passport": ["E12345678", "EA1234567", "G12345678"],
    "ip_address": ["8.8.8.8", "192.168.1.17", "2001:4860:4860::8888"],
    "iban": [
        "GB82WEST12345698765432",
        "GB82 WEST 1234 5698 7654 32",
        "DE89 3704 0044 0532 0130 00",
        "gb82west12345698765432",
    ],
    "us_ssn": ["123-45-6789", "123 45 6789"],
    "regional_id": ["A123456(3)", "AB987654(3)", "A123456789"],
    "number_plate": ["京A12345", "粤B·D12345", "沪C9K218"],
    "address": [
        "221B Baker Street",
        "PO Box 4711",
        "北京市朝阳区建国路88号院3号楼1201室",
        "广东省深圳市南山区科技园路15号",
    ],
}
CASES = [(kind, sample) for kind, samples in SAMPLES.items() for sample in samples]


@pytest.fixture(scope="module")
def detector() -> PiiDetector:
    return make({})


def found(detector: PiiDetector, text: str) -> set[tuple[str, str]]:
    """What any view shows, by the text as it is written."""
    seen = set()
    for view in views(text):
        for one in detector.scan(view.text):
            if one.score >= 0.5:
                start, end = view.raw_span(one.start, one.end)
                seen.add((one.label, text[start:end]))
    return seen


@pytest.mark.parametrize(("kind", "sample"), CASES)
@pytest.mark.parametrize("frame", ["{}", "see {}.", "号码{}谢谢", "（{}）", "「{}」，", "是{}\n", "\t{};"])
def test_each_kind_is_found_wherever_it_stands(detector: PiiDetector, kind: str, sample: str, frame: str) -> None:
    assert (kind, sample) in found(detector, frame.format(sample))


@pytest.mark.parametrize(("kind", "sample"), CASES)
def test_full_width_forms_are_found(detector: PiiDetector, kind: str, sample: str) -> None:
    wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in sample)
    assert (kind, wide) in found(detector, f"请看{wide}吧")


@pytest.mark.parametrize(("kind", "sample"), [(kind, samples[0]) for kind, samples in SAMPLES.items()])
def test_zero_width_characters_hide_nothing(detector: PiiDetector, kind: str, sample: str) -> None:
    hidden = "\u200b".join(sample)
    assert (kind, hidden) in found(detector, f"请看{hidden}吧")


@pytest.mark.parametrize("sample", ["13800138000", "john@x.com", "11010519491231002X", "4111111111111111"])
def test_letter_spacing_hides_nothing(detector: PiiDetector, sample: str) -> None:
    spaced = " ".join(sample)
    assert spaced in {text for _, text in found(detector, f"请看 {spaced} 吧")}


@pytest.mark.parametrize(
    "text",
    [
        "pi is 3.14159265358979 and 0.4111111111111111",
        "版本1.2.3.4.5，第7.3.5.2.1节",
        "it costs 1,234,567 in 2023-11-23 at 12:30:45",
        "sha 3f13912345678bcd, x = a[1:2], std::vector, 127.0.0.1 and 0.0.0.0 and ::1",
        "order A13912345678B, ISBN 978-3-16-148410-0",
        "SSN 666-12-3456, 000-12-3456, 900-12-3456",
        "1234567890 items, 20231123, 10000000",
        "user@host, @handle, a@b, foo@bar.c",
        "11111111111111111111111111111111",
        "He sold 12 Old Masters and 47 people saw 3 King Charles spaniels",
        "京剧A12，苏州河边，北京欢迎你，广东省的经济",
        "A123456(4) and B123456789",
        "born in 1980, founded on 3 May",
        "第3号楼的电梯，见下页",
    ],
)
def test_other_numbers_are_let_pass(detector: PiiDetector, text: str) -> None:
    assert found(detector, text) == set()


def test_a_number_is_found_though_another_follows(detector: PiiDetector) -> None:
    assert ("bank_card", "4111 1111 1111 1111") in found(detector, "card 4111 1111 1111 1111 123")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Call me at 467 33951.", "467 33951"),
        ("电话是 8888 7777", "8888 7777"),
        ("Passport No. 533380006", "533380006"),
        ("护照号码：X1234567", "X1234567"),
        ("my SSN is 123456789", "123456789"),
        ("身份证号：110105491231002", "110105491231002"),
        ("港澳通行证号码C12345678", "C12345678"),
        ("台胞证：12345678", "12345678"),
        ("my driver's license number is F162823540116", "F162823540116"),
        ("驾驶证号是110105194912310021", "110105194912310021"),
        ("She was born on 3 May 1980 in Leeds", "3 May 1980"),
        ("DOB: 05/03/1980", "05/03/1980"),
        ("出生日期：1980年5月3日", "1980年5月3日"),
        ("1980年5月3日出生", "1980年5月3日出生"),
        ("家住朝阳区建国路88号", "朝阳区建国路88号"),
        ("https://ada:s3cr3t@host.org/x", "ada:s3cr3t@"),
    ],
)
def test_a_number_that_is_announced_needs_no_form_of_its_own(detector: PiiDetector, text: str, number: str) -> None:
    assert number in {what for _, what in found(detector, text)}


FRAGMENTS = st.one_of(
    st.sampled_from([sample for _, sample in CASES]),
    st.sampled_from(
        list("0123456789") * 2
        + list(" -.@+():;xXaE:/")
        + [
            "phone ",
            "passport no. ",
            "电话",
            "护照",
            "张",
            "１",
            "\n",
            "born on ",
            "May ",
            "北京",
            "路",
            "号",
            "St",
            "身份证",
        ]
    ),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(FRAGMENTS, max_size=7).map("".join))
def test_streaming_is_exact(text: str) -> None:
    assert faults(DETECTOR, text, categories=["privacy_pii"]) == []


DETECTOR = make({})


def test_the_detector_streams_and_redacts_for_itself(detector: PiiDetector) -> None:
    assert isinstance(detector, StreamingDetector)
    assert isinstance(detector, Redactor)


def test_prose_is_held_word_by_word_and_chinese_not_at_all(detector: PiiDetector) -> None:
    for text in ("The quick brown ", "In 2023, 47 people ", "今天天气", "第3章，", "see (it) and "):
        assert detector.hold_from(text) == len(text)
    assert detector.hold_from("The quick brow") == len("The quick ")


@pytest.mark.parametrize(
    "hard",
    ["1", "1 ", "a", "a.", "a@", "a@b.", "1-", "+1 ", "(1", ":a", "0.", "E1", "4111 ", "GB82", "phone ", "电话1"],
)
def test_time_grows_with_the_text_and_not_faster(detector: PiiDetector, hard: str) -> None:
    def seconds(length: int) -> float:
        text = (hard * length)[:length]
        return min(timeit.repeat(lambda: detector.scan(text), timer=time.process_time, repeat=3, number=1))

    assert seconds(80_000) < 12 * max(seconds(20_000), 0.005)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_only_the_kinds_that_are_named_are_looked_for() -> None:
    assert {label for label, _ in found(make({"kinds": ["email"]}), "a@b.org 13800138000")} == {"email"}


def test_what_is_reserved_for_examples_passes_where_that_is_set() -> None:
    text = (
        "bob@example.com, bob@mail.test, 192.0.2.1, 10.0.0.8, 2001:db8::1234:5678, 212-555-0123; bob@real.org, 8.8.8.8"
    )
    assert {what for _, what in found(make({"allow_reserved": True}), text)} == {"bob@real.org", "8.8.8.8"}
    assert len(found(make({}), text)) == 8


def test_published_test_cards_pass_where_that_is_set() -> None:
    text = "4111 1111 1111 1111 or 4539289860169979"
    assert {what for _, what in found(make({"allow_reserved": True}), text)} == {"4539289860169979"}
    assert len(found(make({}), text)) == 2


def test_web_addresses_are_found_where_they_are_asked_for() -> None:
    assert found(make({}), "see https://a.org/b?c=1.") == set()
    assert found(make({"kinds": ["url"]}), "see https://a.org/b?c=1, 或www.b.cn。") == {
        ("url", "https://a.org/b?c=1"),
        ("url", "www.b.cn"),
    }


def test_listed_values_pass() -> None:
    detector = make({"allow": ["Support@Us.com"]})
    assert {what for _, what in found(detector, "support@us.com or x@us.com")} == {"x@us.com"}


def test_a_placeholder_names_the_kind_and_a_mask_keeps_the_form() -> None:
    finding = next(iter(make({}).scan("a@b.org")))
    assert make({}).replacement("a@b.org", finding) == "[EMAIL]"
    assert make({"replacement": "mask"}).replacement("a@b.org", finding) == "***@b.org"
    assert mask("138-0013-8000") == "***-****-**00"
    assert mask("4111 1111 1111 1234") == "**** **** **** 1234"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"kind": ["email"]}, "did you mean 'kinds'"),
        ({"kinds": ["e-mail"]}, "'kinds.0'|kinds"),
        ({"kinds": []}, "kinds"),
        ({"replacement": "star"}, "replacement"),
    ],
)
def test_wrong_settings_are_told(table: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make(table)
