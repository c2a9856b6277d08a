"""Tasks have right answers, never repeat a question, and hold out questions that training never sees."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_trainer.data.tasks import DEFAULT_TASKS, GYM, GYM_OPTIONS, OWN_TASKS, tasks
from fulmen_trainer.data.verifiers import exact, final, reasoning_gym

VERIFIERS = {"exact": exact, "final": final, "reasoning-gym": reasoning_gym}
ALL = (*OWN_TASKS, *(GYM + name for name in GYM_OPTIONS))


def question(item: Any) -> str:
    return str(item["messages"][0]["content"])


@pytest.mark.parametrize("name", ALL)
def test_the_answer_of_an_item_passes_its_verifier_and_another_does_not(name: str) -> None:
    items = list(tasks(names=[name], count=20, seed=11))
    assert items
    for item in items:
        stored = json.loads(json.dumps(item))  # as the SFT and DPO stages read it
        verify = VERIFIERS[stored["verifier"]]
        assert verify(stored["messages"][-1]["content"], stored) == 1.0
        assert verify(f" {stored['answer']}\n", stored) == 1.0
        assert verify("no idea", stored) < 1.0


@given(st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_arithmetic_is_right(seed: int, max_digits: int) -> None:
    for item in tasks(names=["addition", "subtraction", "multiplication"], count=10, seed=seed, max_digits=max_digits):
        expression = re.fullmatch(r"What is (\d+)([+*-])(\d+)\?", question(item))
        assert expression
        a, sign, b = int(expression[1]), expression[2], int(expression[3])
        assert int(item["answer"]) == {"+": a + b, "-": a - b, "*": a * b}[sign] >= 0
        assert max(a, b) < 10**max_digits


@given(st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_every_step_of_a_worked_answer_is_right_and_together_they_make_the_answer(seed: int, max_digits: int) -> None:
    for item in tasks(names=["worked-addition", "worked-subtraction"], count=10, seed=seed, max_digits=max_digits):
        steps, _, answer = item["messages"][-1]["content"].rpartition(", so ")
        written = ""
        for step in steps.split(", "):
            terms, _, result = step.partition("=")
            first, *rest = (int(term) for term in re.split("[+-]", terms))
            assert int(result) == (first + sum(rest) if "+" in terms else first - sum(rest))
            written = result[-1] + written
        top = steps.rpartition("=")[2]
        assert int(answer) == int(top[:-1] + written) == int(item["answer"])


def test_a_worked_question_is_held_out_exactly_when_the_plain_one_is() -> None:
    plain = {question(item) for item in tasks(names=["addition"], count=10**6, split="heldout", max_digits=1)}
    worked = {question(item) for item in tasks(names=["worked-addition"], count=10**6, split="heldout", max_digits=1)}
    assert plain == worked


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_string_tasks_are_right(seed: int) -> None:
    expected = {
        "Reverse": lambda letters: " ".join(letters[::-1]),
        "Sort": lambda letters: " ".join(sorted(letters)),
        "Uppercase": lambda letters: " ".join(letters).upper(),
    }
    for item in tasks(names=["reverse", "sort-letters", "uppercase", "count-letters"], count=5, seed=seed):
        command, _, letters = question(item).partition(": ")
        if command.startswith("Count "):
            assert item["answer"] == str(letters.split().count(command[-1]))
        else:
            assert item["answer"] == expected[command](letters.split())


@given(st.integers(0, 2**31), st.integers(0, 2**31))
@settings(max_examples=4, deadline=None)
def test_no_seed_brings_a_held_out_question_into_training(first: int, second: int) -> None:
    def key(item: Any) -> tuple[str, ...]:
        """Operands in order: 3+4 and 4+3 are one question."""
        text = question(item)
        return (text,) if "-" in text else tuple(sorted(re.findall(r"\d+|[^\d]+", text)))

    names = ["addition", "subtraction", "multiplication", "reverse"]
    train = {key(item) for item in tasks(names=names, count=300, seed=first, max_digits=1, max_letters=3)}
    heldout = {
        key(item) for item in tasks(names=names, count=300, seed=second, max_digits=1, max_letters=3, split="heldout")
    }
    assert heldout
    assert train.isdisjoint(heldout)


def test_held_out_questions_of_reasoning_gym_are_disjoint_too() -> None:
    names = [GYM + "basic_arithmetic"]
    train = {question(item) for item in tasks(names=names, count=300, seed=1)}
    heldout = {question(item) for item in tasks(names=names, count=50, seed=2, split="heldout")}
    assert len(heldout) == 50
    assert train.isdisjoint(heldout)


def test_no_question_occurs_twice_and_tasks_take_turns() -> None:
    items = list(tasks(names=["addition", "reverse"], count=200))
    assert len({question(item) for item in items}) == len(items) == 400
    assert [item["task"] for item in items[:4]] == ["addition", "reverse", "addition", "reverse"]


def test_a_task_with_fewer_questions_than_wanted_gives_what_it_has() -> None:
    items = list(tasks(names=["addition"], count=1000, max_digits=1, split="all"))
    assert {question(item) for item in items} == {f"What is {a}+{b}?" for a in range(10) for b in range(10)}


def test_the_same_seed_gives_the_same_items_in_another_process() -> None:
    names = ["addition", "count-letters", GYM + "spell_backward"]
    code = (
        "import json; from fulmen_trainer.data.tasks import tasks; "
        f"print(json.dumps(list(tasks(names={names!r}, count=5, seed=3))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = list(tasks(names=names, count=5, seed=3))
    assert json.loads(done.stdout) == json.loads(json.dumps(here))
    assert here != list(tasks(names=names, count=5, seed=4))


def test_own_tasks_do_without_reasoning_gym() -> None:
    code = (
        "import sys; from fulmen_trainer.data.tasks import OWN_TASKS, tasks; "
        "list(tasks(names=list(OWN_TASKS), count=2)); assert 'reasoning_gym' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_default_tasks_include_both_kinds() -> None:
    assert {name.startswith(GYM) for name in DEFAULT_TASKS} == {True, False}


@given(st.text(max_size=40))
@settings(max_examples=20, deadline=None)
def test_no_answer_however_odd_makes_a_scorer_raise(answer: str) -> None:
    for item in tasks(names=[GYM + name for name in GYM_OPTIONS], count=1):
        assert 0.0 <= reasoning_gym(answer, item) <= 1.0


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"names": ["adition"]}, "unknown task 'adition'"),
        ({"names": [GYM + "no_such_task"]}, "reasoning-gym refuses the task 'no_such_task'"),
        ({"names": [GYM + "chain_sum"], "options": {"chain_sum": {"max_terms": -1}}}, "reasoning-gym refuses"),
        ({"names": [GYM + "chain_sum"], "options": {"chain_sum": {"colour": 1}}}, "reasoning-gym refuses"),
        ({"count": 0}, "count=0"),
        ({"max_digits": 10}, "max_digits=10"),
        ({"min_letters": 5, "max_letters": 3}, "min_letters=5"),
        ({"heldout_percent": 101}, "heldout_percent 101"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_in_words(settings_: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        list(tasks(**settings_))


def test_an_item_that_a_verifier_cannot_score_is_refused() -> None:
    with pytest.raises(UserError, match="no answer to compare with"):
        exact("1", {"task": "x"})
    with pytest.raises(UserError, match="no metadata"):
        reasoning_gym("1", {"answer": "1"})
    with pytest.raises(UserError, match="on the item's own answer"):
        reasoning_gym("x", {"answer": "y", "metadata": {"source_dataset": "prime_factorization"}})
