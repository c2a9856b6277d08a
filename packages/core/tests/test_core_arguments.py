"""The parser that every verb uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulmen_core.cli import arguments
from fulmen_core.errors import UserError


def made() -> arguments.Parser:
    parser = arguments.parser("fulmen sft", "fine-tune on instructions")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1)
    return parser


def test_overrides_may_stand_among_the_options_in_any_order() -> None:
    for words in (
        ["--run", "r", "a=1", "b.c=2"],
        ["a=1", "--run", "r", "b.c=2"],
        ["a=1", "b.c=2", "--run", "r"],
        ["a=1", "--run=r", "--steps", "1", "b.c=2", "--json"],
    ):
        args = made().parse_args(words)
        assert (args.overrides, args.run, args.recipe) == (["a=1", "b.c=2"], Path("r"), None)


def test_the_recipe_and_json_are_there_unless_declined() -> None:
    args = made().parse_args(["--run", "r", "--recipe", "x.toml", "--json"])
    assert (args.recipe, args.json, args.overrides) == (Path("x.toml"), True, [])
    bare = arguments.parser("fulmen x", "y", recipe=False, json=False).parse_args([])
    assert vars(bare) == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: --run in fulmen sft: see `fulmen sft --help`"),
        (["--run", "r", "--stepps", "3"], "unknown argument '--stepps' in fulmen sft: did you mean --steps?"),
        (
            ["--run", "r", "--steps", "x"],
            "argument --steps: invalid int value: 'x' in fulmen sft: see `fulmen sft --help`",
        ),
        (["--run", "r", "--threads", "2"], "--threads belongs before the verb: write `fulmen --threads ... sft`"),
        (["--ru", "r"], "the following arguments are required: --run in fulmen sft"),
    ],
)
def test_a_fault_is_a_user_error(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        made().parse_args(words)
    assert str(raised.value).startswith(sentence)


def test_verbs_below_a_verb_keep_all_of_this() -> None:
    parser = arguments.parser("fulmen model", "look at models", recipe=False, json=False)
    show = parser.add_subparsers(dest="action", required=True).add_parser("show")
    show.add_argument("--preset")
    assert parser.parse_args(["show", "--preset", "nano"]).preset == "nano"
    with pytest.raises(UserError, match=r"unknown argument '--presett'"):
        parser.parse_args(["show", "--presett", "nano"])
    with pytest.raises(UserError, match="invalid choice: 'shw'"):
        parser.parse_args(["shw"])
