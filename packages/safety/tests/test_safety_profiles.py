from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.cli import main
from fulmen_safety import Finding, UserError
from fulmen_safety.inheritance import PROFILES, profile_source
from fulmen_safety.policy import STRICTNESS, load_policy
from fulmen_safety.schema import policy_schema
from fulmen_safety.taxonomy import taxonomy


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str, name: str = "mine.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return write


# -- profiles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_under_its_name_and_speaks_two_languages(name: str) -> None:
    policy = load_policy(name)
    assert policy.file.name == name
    assert all(one.message is None or one.message.zh for one in policy.file.categories.values())


def test_profiles_have_different_versions() -> None:
    assert len({load_policy(name).version for name in PROFILES}) == len(PROFILES)


@pytest.mark.parametrize("code", taxonomy().titles)
def test_strict_is_nowhere_milder_than_default_and_open_nowhere_stricter(code: str) -> None:
    strict, default, opened = (load_policy(name).category(code) for name in ("strict", "default", "open"))
    assert strict.threshold <= default.threshold <= opened.threshold
    assert strict.reward >= default.reward >= opened.reward
    for phase, actions in STRICTNESS.items():
        ranks = [actions.index(getattr(rules, phase)) for rules in (strict, default, opened)]
        assert ranks == sorted(ranks, reverse=True), phase


def test_no_profile_lets_an_unchecked_text_pass() -> None:
    assert all(entry.on_error == "closed" for name in PROFILES for entry in load_policy(name).detectors)


# -- extending ---------------------------------------------------------------------------------------------------------


def test_a_file_that_extends_a_profile_says_only_what_differs(written: Any) -> None:
    path = written('extends = "strict"\nname = "mine"\n[categories.privacy_pii]\nthreshold = 0.9\n')
    mine, strict = load_policy(path), load_policy("strict")
    assert mine.category("privacy_pii").threshold == 0.9
    assert mine.category("privacy_pii").output == strict.category("privacy_pii").output
    assert mine.category("sex_crime") == strict.category("sex_crime")
    assert mine.detectors == strict.detectors
    assert mine.version != strict.version


def test_what_a_file_says_of_the_default_goes_to_what_is_not_listed_below(written: Any) -> None:
    path = written('extends = "default"\n[categories.default]\noutput = "redact"\n')
    assert load_policy(path).category("defamation_honour").output == "redact"
    assert load_policy(path).category("prompt_attack").output == "allow"  # which the profile lists itself


def test_detectors_are_merged_by_name_added_and_left_out(written: Any) -> None:
    path = written(
        """
        extends = "default"
        [[detectors]]
        name = "attack"
        enabled = false
        [[detectors]]
        name = "pii"
        deadline_ms = 50
        [[detectors]]
        name = "terms"
        settings.lists = [{ category = "self_harm", terms = ["abyss"] }]
        """
    )
    names = [entry.name for entry in load_policy("default").detectors if entry.name != "attack"]
    detectors = load_policy(path).detectors
    assert [entry.name for entry in detectors] == [*names, "terms"]
    pii = next(entry for entry in detectors if entry.name == "pii")
    assert (pii.deadline_ms, pii.on_error) == (50, "closed")


def test_files_extend_files_relative_to_themselves(written: Any, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    written('extends = "open"\nversion = "7"\n', "house.toml")
    path = written('extends = "../house.toml"\nname = "team"\n', "deep/team.toml")
    policy = load_policy(path)
    assert (policy.file.name, policy.version[:2], policy.category("sexual_content").output) == ("team", "7+", "allow")


def test_a_file_named_like_a_profile_goes_before_it(
    written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written('extends = "default"\nname = "house"\n', "strict")
    monkeypatch.chdir(tmp_path)
    assert load_policy("strict").file.name == "house"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('extends = "strct"\n', "did you mean 'strict'"),
        ('extends = "gone.toml"\n', "there is no policy 'gone.toml' to extend"),
        ('extends = "mine.toml"\n', "extends itself"),
        ("extends = 7\n", "'extends' is no text"),
        ('extends = "strict"\n[categories.privacy_pii]\ntreshold = 0.5\n', "did you mean 'threshold'"),
        ('extends = "strict"\n[categories.privacy_pii]\nthresholds.zh = 7\n', "thresholds"),
        ('extends = "strict"\n[[detectors]]\nname = "pii"\nrules.privacy_pi.input = "block"\n', "did you mean"),
        ('extends = "default"\n[[detectors]]\nname = "pii"\nrules.defamation_honour.input = "block"\n', "message.en"),
    ],
)
def test_a_fault_in_what_is_extended_is_told_in_one_sentence(written: Any, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        load_policy(written(text))
    assert "mine.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_two_files_that_extend_each_other_are_told(written: Any) -> None:
    written('extends = "mine.toml"\n', "other.toml")
    with pytest.raises(UserError, match="extends itself"):
        load_policy(written('extends = "other.toml"\n'))


# -- rules of one detector ---------------------------------------------------------------------------------------------


def test_a_detector_may_have_rules_of_its_own(written: Any) -> None:
    policy = load_policy(
        written(
            """
            extends = "default"
            [[detectors]]
            name = "pii"
            [detectors.rules.privacy_pii]
            threshold = 0.9
            input = "block"
            message.en = "no"
            """
        )
    )
    mine, other = (Finding(name, "privacy_pii", 0.8, 0, 1) for name in ("pii", "other"))
    assert (policy.action(mine, "input"), policy.action(other, "input")) == ("block", "rewrite")
    assert (policy.counts(mine, "x"), policy.counts(other, "x")) == (False, True)
    assert policy.action(mine, "output") == policy.action(other, "output")
    assert policy.message(mine, "en") == "no"


# -- the schema --------------------------------------------------------------------------------------------------------


def test_the_schema_takes_every_profile_and_refuses_what_a_policy_may_not_say() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(policy_schema())
    jsonschema.Draft202012Validator.check_schema(policy_schema())
    for name in PROFILES:
        assert list(validator.iter_errors(tomllib.loads(profile_source(name)))) == []
    assert validator.is_valid({"extends": "strict"})
    for wrong in (
        {},
        {"extends": "strict", "nmae": "x"},
        {"extends": "strict", "categories": {"privacy_pi": {}}},
        {"extends": "strict", "categories": {"privacy_pii": {"threshold": 2}}},
        {"extends": "strict", "categories": {"privacy_pii": {"output": "shred"}}},
        {"extends": "strict", "detectors": [{"deadline_ms": 5}]},
        {"extends": "strict", "detectors": [{"name": "pii", "rules": {"privacy_pi": {}}}]},
    ):
        assert not validator.is_valid(wrong), wrong


def test_every_key_of_the_schema_is_described() -> None:
    schema = policy_schema()
    tables = [schema, *schema["$defs"].values()]
    assert all(described.get("description") for table in tables for described in table["properties"].values())


# -- the verb ----------------------------------------------------------------------------------------------------------


def test_a_profile_is_shown_and_the_schema_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["raise", "policy", "show", "--profile", "strict"]) == 0
    assert capsys.readouterr().out.startswith("strict, version 1+")
    assert main(["raise", "policy", "show", "strict", "--toml"]) == 0
    assert capsys.readouterr().out == profile_source("strict")
    assert main(["raise", "policy", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["extends"]
    assert main(["raise", "policy", "show", "--profile", "strict", "--policy", "open"]) == 2
    assert "two policies" in capsys.readouterr().err
