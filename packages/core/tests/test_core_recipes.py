"""A recipe becomes a checked config, or one sentence that names the key, the place and what would be right."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fulmen_core.errors import UserError
from fulmen_core.recipes import load_recipe


class Optimizer(BaseModel):
    """A nested table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)


class Train(BaseModel):
    """A recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(100, ge=1)
    run: str = "runs/x"
    resume: bool = False
    optimizer: Optimizer = Optimizer()
    mixtures: dict[str, Optimizer] = {}
    optional: Optimizer | None = None

    @model_validator(mode="after")
    def _even(self) -> Train:
        if self.steps == 13:
            raise ValueError("13 steps bring bad luck")
        return self


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def fault(path: Path | None = None, *overrides: str) -> str:
    with pytest.raises(UserError) as raised:
        load_recipe(Train, path, overrides)
    sentence = str(raised.value)
    assert "\n" not in sentence
    return sentence


def test_without_file_and_overrides_the_defaults_hold() -> None:
    assert load_recipe(Train) == Train()


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "steps = 5\n[optimizer]\nlr = 0.5\nname = 'muon'")
    config = load_recipe(Train, path, ["optimizer.lr=0.25", "resume=true", "optimizer.betas=[0.8, 0.9]"])
    assert config == Train(steps=5, resume=True, optimizer=Optimizer(name="muon", lr=0.25, betas=(0.8, 0.9)))


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("run=runs/demo", "run", "runs/demo"),
        ("run=7", "run", "7"),
        ("run=2024-01-01", "run", "2024-01-01"),
        ("run=true", "run", "true"),
        ('run="a b"', "run", "a b"),
        ("run=", "run", ""),
        ("run=a=b", "run", "a=b"),
        ("run=a # b", "run", "a # b"),
        ("steps=007", "steps", 7),
        (" steps = 3 ", "steps", 3),
        ("optimizer.name=muon", "optimizer", Optimizer(name="muon")),
        ("optional.lr=2.0", "optional", Optimizer(lr=2.0)),
        ("mixtures.code.lr=2.0", "mixtures", {"code": Optimizer(lr=2.0)}),
    ],
)
def test_an_override_is_toml_where_it_can_be_and_text_where_text_is_meant(override: str, key: str, value: Any) -> None:
    assert getattr(load_recipe(Train, None, [override]), key) == value


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10**9).filter(lambda steps: steps != 13), st.floats(1e-9, 1e9), st.booleans())
def test_numbers_survive_the_command_line(steps: int, lr: float, resume: bool) -> None:
    config = load_recipe(Train, None, [f"steps={steps}", f"optimizer.lr={lr!r}", f"resume={str(resume).lower()}"])
    assert (config.steps, config.optimizer.lr, config.resume) == (steps, lr, resume)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])))
def test_any_text_after_the_equals_sign_gives_a_config_or_a_user_error(text: str) -> None:
    try:
        tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        assert load_recipe(Train, None, [f"run={text}"]).run == text.strip()


def test_an_unknown_key_gets_a_did_you_mean_at_every_depth(tmp_path: Path) -> None:
    path = write(tmp_path, "stepps = 5")
    assert fault(path) == f"unknown key 'stepps' in {path}: did you mean 'steps'?"
    path = write(tmp_path, "[optimizer]\nwarmth = 1")
    assert fault(path) == f"unknown key 'warmth' in {path} [optimizer]: known keys: betas, lr, name"
    path = write(tmp_path, "[mixtures.code]\nnaem = 'muon'")
    assert fault(path) == f"unknown key 'naem' in {path} [mixtures.code]: did you mean 'name'?"
    path = write(tmp_path, "[optional]\nbeta = 1")
    assert fault(path) == f"unknown key 'beta' in {path} [optional]: did you mean 'betas'?"


def test_many_faults_are_still_one_sentence(tmp_path: Path) -> None:
    sentence = fault(write(tmp_path, "\n".join(f"key{number} = 1" for number in range(9))))
    assert sentence.count("unknown key") == 3
    assert sentence.endswith("; and 6 more")


def test_an_unknown_key_on_the_command_line_is_placed_there() -> None:
    assert fault(None, "optimizer.lrr=1") == "unknown key 'lrr' in the command line: did you mean 'lr'?"


def test_a_value_that_does_not_fit_names_key_place_and_what_would(tmp_path: Path) -> None:
    path = write(tmp_path, "steps = 0")
    assert fault(path) == f"'steps' in {path} should be greater than or equal to 1, not 0"
    path = write(tmp_path, "[optimizer]\nname = 'adma'")
    assert fault(path) == f"'name' in {path} [optimizer] should be 'adamw' or 'muon', not 'adma'"
    assert fault(None, "steps=many").startswith("'steps' in the command line should be a valid integer")


def test_a_fault_of_the_whole_is_told_in_the_models_own_words(tmp_path: Path) -> None:
    assert fault(None, "steps=13") == "13 steps bring bad luck in the recipe"


def test_a_very_long_value_is_not_quoted_whole() -> None:
    assert len(fault(None, "steps=" + "x" * 10_000)) < 250


@pytest.mark.parametrize("override", ["steps", "=3", "a..b=1", ".steps=1"])
def test_a_word_that_is_no_override_says_how_to_write_one(override: str) -> None:
    assert (
        fault(None, override) == f"{override!r} is no override in the command line: write key=value or table.key=value"
    )


def test_an_override_below_a_value_that_is_no_table(tmp_path: Path) -> None:
    assert fault(write(tmp_path, "steps = 3"), "steps.deep=1") == "'steps' is no table in the command line: it is 3"


def test_broken_toml_gives_line_and_column(tmp_path: Path) -> None:
    path = write(tmp_path, "steps = 5\n[optimizer\n")
    assert fault(path).startswith(f"broken TOML in {path}: ")
    assert "line 2" in fault(path)


def test_invalid_utf8_and_missing_files_and_folders_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"run = '\xff'")
    assert fault(tmp_path / "binary.toml") == f"invalid UTF-8 in {tmp_path}/binary.toml: byte 7 is not text"
    assert fault(tmp_path / "nowhere.toml") == f"there is no recipe {tmp_path}/nowhere.toml: check the path"
    assert fault(tmp_path) == f"the recipe {tmp_path} cannot be read: Is a directory"
