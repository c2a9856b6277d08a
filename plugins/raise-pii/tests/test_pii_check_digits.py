from __future__ import annotations

import datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fulmen_raise_pii.check_digits import (
    CREDIT_CODE_CHARACTERS,
    credit_check,
    hong_kong_check,
    iban,
    luhn,
    resident_check,
    taiwan_check,
)
from fulmen_raise_pii.detector import PiiDetector, make
from fulmen_raise_pii.regions import region_score

DIGITS = "0123456789"


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text(DIGITS, min_size=count, max_size=count)


@st.composite
def resident_ids(draw: st.DrawFn) -> str:
    region = draw(st.sampled_from(["110101", "310115", "440305", "510107", "652301", "810000", "150207"]))
    birthday = draw(st.dates(datetime.date(1920, 1, 1), datetime.date(2024, 12, 31))).strftime("%Y%m%d")
    first = region + birthday + draw(digits(3))
    return first + resident_check(first)


@st.composite
def credit_codes(draw: st.DrawFn) -> str:
    code = st.text(CREDIT_CODE_CHARACTERS, min_size=9, max_size=9)
    first = draw(st.sampled_from(["91", "92", "93", "51", "12", "N1"])) + "440300" + draw(code)
    return first + credit_check(first)


@st.composite
def bank_cards(draw: st.DrawFn) -> str:
    prefix, length = draw(
        st.sampled_from(
            [("4", 16), ("53", 16), ("2221", 16), ("37", 15), ("622848", 19), ("6217", 16), ("3566", 16), ("36", 14)]
        )
    )
    first = prefix + draw(digits(length - len(prefix) - 1))
    return next(first + digit for digit in DIGITS if luhn(first + digit))


@st.composite
def ibans(draw: st.DrawFn) -> str:
    country, rest = draw(st.sampled_from([("DE", 18), ("FR", 23), ("NO", 11), ("CH", 17)]))
    account = draw(digits(rest))
    number = int("".join(str(int(char, 36)) for char in account + country + "00"))
    return f"{country}{98 - number % 97:02}{account}"


KINDS = {"resident_id": resident_ids(), "credit_code": credit_codes(), "bank_card": bank_cards(), "iban": ibans()}


@pytest.fixture(scope="module")
def detector() -> PiiDetector:
    return make({})


def kinds(detector: PiiDetector, text: str) -> set[tuple[str, str]]:
    return {(one.label, text[one.start : one.end]) for one in detector.scan(text)}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_valid_number_is_found_and_one_wrong_digit_is_noticed(
    detector: PiiDetector, kind: str, data: st.DataObject
) -> None:
    number = data.draw(KINDS[kind])
    assume(len(set(number)) > 2)
    assert (kind, number) in kinds(detector, f"号码{number}。")
    place = data.draw(st.sampled_from([place for place, char in enumerate(number) if char in DIGITS]))
    wrong = data.draw(st.sampled_from([digit for digit in DIGITS if digit != number[place]]))
    altered = number[:place] + wrong + number[place + 1 :]
    assert kind not in {label for label, _ in kinds(detector, f"号码{altered}。")}


def test_a_county_that_is_not_listed_counts_less_than_one_that_is(detector: PiiDetector) -> None:
    def score(region: str) -> float:
        first = region + "19491231002"
        return max((one.score for one in detector.scan(first + resident_check(first))), default=0.0)

    assert score("110101") == 1.0
    assert score("340302") > score("340399") > 0.5  # Bengbu, and a county that it never had
    assert score("119901") == 0.0


def test_the_table_of_regions_has_what_was_retired_and_what_never_was_is_not_in_it() -> None:
    assert region_score("510202") == 1.0  # Chongqing's centre while it was a part of Sichuan
    assert region_score("422301") == 1.0  # Xianning, a prefecture until 1998
    assert region_score("000000") == region_score("990101") == 0.0


def test_published_examples_check() -> None:
    assert resident_check("11010519491231002") == "X"  # GB 11643-1999
    assert credit_check("91350100M000100Y4") == "3"  # GB 32100-2015
    assert luhn("4111111111111111")
    assert luhn("378282246310005")
    assert not luhn("4111111111111112")
    assert iban("GB82WEST12345698765432")
    assert hong_kong_check("A123456") == hong_kong_check("AB987654") == "3"
    assert taiwan_check("A12345678") == "9"
    assert not iban("GB82WEST12345698765431")


@pytest.mark.parametrize(
    "number",
    [
        "99010519491231002X",  # no such province
        "11990519491231002X",  # no such prefecture
        "110105194902310025",  # 31 February
    ],
)
def test_a_resident_id_needs_a_region_and_a_birthday(detector: PiiDetector, number: str) -> None:
    number = number[:17] + resident_check(number[:17])
    assert "resident_id" not in {label for label, _ in kinds(detector, number)}
