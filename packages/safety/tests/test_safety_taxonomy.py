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


#: What each category is in the other schemes, put down apart from the crosswalk: the hazards of AILuminate 1.0
#: (arXiv 2503.05731), Llama Guard 3's model card, OpenAI's moderation guide, the classes of GB/T 45654-2025 (A.1 core
#: values, A.2 discrimination, A.3 commercial, A.4 rights of others, A.5 reliability).
KNOWN: dict[str, tuple[set[str], set[str], set[str], set[str]]] = {
    "violent_crime": ({"violent_crimes"}, {"S1"}, {"illicit/violent", "violence"}, {"A.1"}),
    "nonviolent_crime": ({"nonviolent_crimes"}, {"S2"}, {"illicit"}, {"A.1", "A.3"}),
    "sex_crime": ({"sex_related_crimes"}, {"S3"}, {"sexual", "illicit"}, {"A.1"}),
    "child_exploitation": ({"child_sexual_exploitation"}, {"S4"}, {"sexual/minors"}, {"A.1", "A.4"}),
    "weapons_cbrne": ({"indiscriminate_weapons"}, {"S9"}, {"illicit/violent"}, {"A.1"}),
    "self_harm": ({"suicide_self_harm"}, {"S11"}, {"self-harm", "self-harm/intent", "self-harm/instructions"}, {"A.4"}),
    "hate_discrimination": ({"hate"}, {"S10"}, {"hate", "hate/threatening", "harassment"}, {"A.1", "A.2"}),
    "defamation_honour": ({"defamation"}, {"S5"}, set(), {"A.4"}),
    "privacy_pii": ({"privacy"}, {"S7"}, set(), {"A.4"}),
    "ip_secrets": ({"intellectual_property"}, {"S8"}, set(), {"A.3"}),
    "sexual_content": ({"sexual_content"}, {"S12"}, {"sexual"}, {"A.1"}),
    "specialized_advice": ({"specialized_advice"}, {"S6"}, set(), {"A.5"}),
    "political_national": (set(), {"S13"}, set(), {"A.1"}),
    "code_abuse": (set(), {"S14"}, set(), set()),
    "prompt_attack": (set(), set(), set(), set()),
    "low_quality": (set(), set(), set(), set()),
}


@pytest.mark.parametrize("category", KNOWN)
def test_a_category_stands_where_each_scheme_files_it(category: str) -> None:
    for scheme, known in zip(("ailuminate", "llama_guard", "openai", "gbt_45654"), KNOWN[category], strict=True):
        codes = taxonomy().codes(scheme, category)
        assert known <= ({code[:3] for code in codes} if scheme == "gbt_45654" else set(codes)), scheme


def test_what_is_known_covers_every_category_and_every_scheme_has_an_edition() -> None:
    assert set(KNOWN) == set(taxonomy().titles)
    assert set(taxonomy().editions) == set(SCHEME_SIZES)


def test_quality_is_declared_to_be_in_no_scheme() -> None:
    for scheme in SCHEME_SIZES:
        assert "low_quality" in taxonomy().unmapped[scheme], scheme
        assert taxonomy().codes(scheme, "low_quality") == (), scheme


def test_the_codes_are_those_that_the_schemes_have() -> None:
    crosswalk = taxonomy().crosswalk
    assert set(crosswalk["llama_guard"]) == {f"S{number}" for number in range(1, 15)}
    sizes = {"A.1": 8, "A.2": 9, "A.3": 5, "A.4": 7, "A.5": 2}
    assert {part: sum(code[:3] == part for code in crosswalk["gbt_45654"]) for part in sizes} == sizes
    assert sum(code.startswith("self-harm") for code in crosswalk["openai"]) == 3
