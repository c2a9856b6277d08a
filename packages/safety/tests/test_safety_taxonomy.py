from __future__ import annotations

import dataclasses

import pytest

from fulmen_safety import UserError
from fulmen_safety.taxonomy import SCHEME_SIZES, taxonomy


def test_every_code_of_every_scheme_is_mapped_or_declared_unmapped() -> None:
    assert taxonomy().faults() == []


@pytest.mark.parametrize("scheme", SCHEME_SIZES)
def test_a_forgotten_code_is_noticed(scheme: str) -> None:
    whole = taxonomy()
    codes = dict(whole.crosswalk[scheme])
    codes.popitem()
    broken = dataclasses.replace(whole, crosswalk={**whole.crosswalk, scheme: codes})
    assert any(scheme in fault for fault in broken.faults())


def test_a_forgotten_category_is_noticed() -> None:
    whole = taxonomy()
    broken = dataclasses.replace(whole, titles={**whole.titles, "time_travel": {"en": "time travel", "zh": "时间旅行"}})
    assert len(broken.faults()) == len(SCHEME_SIZES)


def test_every_category_has_a_title_in_both_languages() -> None:
    assert all(titles["en"] and titles["zh"] for titles in taxonomy().titles.values())


def test_categories_are_looked_up_in_other_schemes() -> None:
    assert taxonomy().codes("llama_guard", "privacy_pii") == ("S7",)
    assert taxonomy().codes("gbt_45654", "privacy_pii") == ("A.4.e", "A.4.f")
    assert taxonomy().codes("openai", "privacy_pii") == ()


def test_unknown_names_are_told_with_a_suggestion() -> None:
    with pytest.raises(UserError, match="llama_guard"):
        taxonomy().codes("lama_guard", "privacy_pii")
    with pytest.raises(UserError, match="privacy_pii"):
        taxonomy().codes("openai", "privacy_pi")
