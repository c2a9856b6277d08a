from __future__ import annotations

import datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fulmen_raise_pii.check_digits import credit_check, hong_kong_check, iban, luhn, resident_check, taiwan_check
from fulmen_raise_pii.detector import make
from fulmen_raise_pii.regions import region_score
from fulmen_raise_pii.surrogate import surrogate

KEY = b"a key of the tests"
SAMPLES = {
    "resident_id": "11010519491231002X",
    "credit_code": "91350100M000100Y43",
    "bank_card": "4111 1111 1111 1111",
    "iban": "GB82 WEST 1234 5698 7654 32",
    "phone": "+86 138-0013-8000",
    "us_ssn": "123-45-6789",
    "email": "john.doe@mail.co.uk",
    "ip_address": "8.8.8.8",
    "regional_id": "A123456(3)",
    "passport": "E12345678",
    "birth_date": "05/03/1980",
}
DIGITS = st.text("0123456789", min_size=1, max_size=1)


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_value_has_one_surrogate_under_a_key_and_another_under_another(kind: str) -> None:
    value = SAMPLES[kind]
    assert surrogate(value, kind, KEY) == surrogate(value, kind, KEY) != value
    assert surrogate(value, kind, KEY) != surrogate(value, kind, b"another key")


@pytest.mark.parametrize("kind", ["resident_id", "credit_code", "bank_card", "iban", "phone", "passport", "us_ssn"])
def test_the_separators_and_classes_of_characters_stay(kind: str) -> None:
    value = SAMPLES[kind]
    made = surrogate(value, kind, KEY)
    assert [char if not char.isalnum() else "" for char in made] == [
        char if not char.isalnum() else "" for char in value
    ]


def test_ways_of_writing_one_number_get_the_same_number() -> None:
    plain, spaced = (surrogate(card, "bank_card", KEY) for card in ("4111111111111111", "4111 1111 1111 1111"))
    assert spaced.replace(" ", "") == plain
    wide = "".join(chr(ord(char) + 0xFEE0) for char in "11010519491231002X")
    assert surrogate(wide, "resident_id", KEY) == surrogate("11010519491231002x", "resident_id", KEY).upper()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 999), st.dates(datetime.date(1930, 1, 1), datetime.date(2020, 1, 1)))
def test_a_resident_id_becomes_one_of_a_real_region_and_date_with_its_check_digit(
    serial: int, day: datetime.date
) -> None:
    first = f"440305{day:%Y%m%d}{serial:03}"
    made = surrogate(first + resident_check(first), "resident_id", KEY)
    assert made[17] == resident_check(made[:17])
    assert region_score(made[:6]) == 1.0
    born = datetime.datetime.strptime(made[6:14], "%Y%m%d").date()
    assert abs(born.year - day.year) <= 4
    assert int(made[16]) % 2 == serial % 2  # of the same sex
    assert {"resident_id"} == {one.label for one in make({"kinds": ["resident_id"]}).scan(made)}


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789", min_size=15, max_size=15))
def test_check_digits_are_right(digits: str) -> None:
    assume(len(set(digits)) > 1)
    card = surrogate("4" + digits, "bank_card", KEY)
    assert luhn(card)
    assert card.startswith("4")
    assert iban(surrogate("GB82WEST" + digits[:14], "iban", KEY))
    code = surrogate("91440300" + digits[:10], "credit_code", KEY)
    assert code[17] == credit_check(code[:17])
    hong_kong = surrogate(f"A{digits[:6]}({digits[6]})", "regional_id", KEY)
    assert hong_kong_check(hong_kong[:7]) == hong_kong[8]
    taiwan = surrogate("A1" + digits[:8], "regional_id", KEY)
    assert taiwan_check(taiwan[:9]) == taiwan[9]


def test_twenty_thousand_values_have_as_many_surrogates() -> None:
    cards = {surrogate(f"{4_000_000_000_000_000 + 7 * number}", "bank_card", KEY) for number in range(20_000)}
    assert len(cards) > 19_998
    emails = {surrogate(f"user{number}@mail.org", "email", KEY) for number in range(20_000)}
    assert len(emails) > 19_998


def test_addresses_become_those_kept_for_examples() -> None:
    assert surrogate("john@mail.org", "email", KEY).endswith("@example.com")
    assert surrogate("8.8.8.8", "ip_address", KEY).startswith(("198.18.", "198.19."))
    assert surrogate("2001:4860:4860::8888", "ip_address", KEY).startswith("2001:db8:")


def test_what_has_no_form_gets_its_label_and_a_number() -> None:
    made = surrogate("Ada Lovelace", "person", KEY)
    assert made.startswith("[PERSON-")
    assert made != surrogate("Ada Byron", "person", KEY)


def test_the_detector_replaces_by_its_settings_and_a_key_of_its_own() -> None:
    text = "11010519491231002X"
    (finding,) = make({"kinds": ["resident_id"]}).scan(text)
    keyed = make({"replacement": "surrogate", "surrogate_key": "k"})
    assert keyed.replacement(text, finding) == surrogate(text, "resident_id", b"k")
    one, other = (make({"replacement": "surrogate"}).replacement(text, finding) for _ in range(2))
    assert one != other
