from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fulmen_safety import Finding, UserError
from fulmen_safety.policy import default_source, load_policy, make_policy
from fulmen_safety.taxonomy import taxonomy


def load(table: dict[str, Any]) -> str:
    return make_policy(table, where="p.toml", folder=Path()).version


def test_the_shipped_policy_is_valid_and_speaks_two_languages() -> None:
    policy = load_policy()
    assert policy.file.taxonomy == taxonomy().version
    for rules in policy.file.categories.values():
        assert rules.message is None or (rules.message.en and rules.message.zh)


def test_a_copy_of_the_shipped_policy_is_the_same_policy(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(default_source(), "utf-8")
    assert load_policy(path).version == load_policy().version


def test_the_version_follows_the_content_and_not_its_layout(policy_table: dict[str, Any]) -> None:
    before = load(policy_table)
    assert before.startswith("7+")
    assert load(dict(reversed(policy_table.items()))) == before
    policy_table["categories"]["default"]["threshold"] = 0.51
    assert load(policy_table) != before


def test_categories_that_are_not_listed_follow_the_default(policy_table: dict[str, Any]) -> None:
    policy = make_policy(policy_table, where="p.toml", folder=Path())
    assert policy.category("self_harm") == policy.file.categories["default"]
    assert not policy.counts(Finding("d", "self_harm", 0.49, 0, 1), "x")
    assert policy.counts(Finding("d", "self_harm", 0.5, 0, 1), "x")


def test_a_category_takes_from_the_default_what_it_leaves_out(policy_table: dict[str, Any]) -> None:
    policy_table["categories"]["self_harm"] = {"output": "redact"}
    rules = make_policy(policy_table, where="p.toml", folder=Path()).category("self_harm")
    assert (rules.output, rules.corpus, rules.threshold) == ("redact", "keep", 0.5)


def _rename(table: dict[str, Any], old: str, new: str) -> None:
    table[new] = table.pop(old)


FAULTS: list[tuple[Any, str]] = [
    (lambda t: _rename(t, "failure", "failures"), "unknown key 'failures'"),
    (lambda t: _rename(t["categories"], "privacy_pii", "privacy_pi"), "did you mean 'privacy_pii'"),
    (lambda t: _rename(t["categories"]["default"], "threshold", "treshold"), "did you mean 'threshold'"),
    (lambda t: t["categories"]["default"].update(output="stopp"), "'output'"),
    (lambda t: t["categories"]["default"].update(threshold=1.5), "'threshold'"),
    (lambda t: t["categories"]["default"].update(thresholds={"de": 0.5}), "de"),
    (lambda t: t["categories"]["default"].update(input="block"), "message.en"),
    (lambda t: t["categories"].pop("default"), "no rules for"),
    (lambda t: t["detectors"].append({"name": "terms"}), "listed twice"),
    (lambda t: t["detectors"][0].update(on_eror="open"), "did you mean 'on_error'"),
    (lambda t: t["detectors"][0].update(deadline_ms=0), "'deadline_ms'"),
    (lambda t: t.update(taxonomy="0.9"), "taxonomy '0.9'"),
]


@pytest.mark.parametrize(("change", "told"), FAULTS)
def test_a_faulty_policy_is_told_in_one_sentence(policy_table: dict[str, Any], change: Any, told: str) -> None:
    change(policy_table)
    with pytest.raises(UserError) as error:
        load(policy_table)
    assert told in str(error.value)
    assert "p.toml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"name = ", "broken TOML"), (b"name = '\xff'", "UTF-8"), (None, "there is no policy")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "policy.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        load_policy(path)
    assert str(path) in str(error.value)
