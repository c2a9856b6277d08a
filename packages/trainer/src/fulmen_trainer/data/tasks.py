"""Instructions with verifiers: generated arithmetic and string tasks of our own, and tasks of reasoning-gym.

Whether an item is for training or held out follows from the hash of its question (of its operands in order, where they
commute: 3+4 is never held out while 4+3 is trained on), so the two splits are disjoint whatever the seed.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import validate_call

from fulmen_core.errors import UserError
from fulmen_trainer.data.splits import Split, check_split, in_split
from fulmen_trainer.data.verifiers import import_reasoning_gym

#: After this many candidates in a row that are known or in the other split, a task is taken as exhausted.
PATIENCE = 10_000
GYM = "reasoning-gym/"


class Question(NamedTuple):
    """A question, its answer, what decides its split, and the reply if it says more than the answer."""

    text: str
    answer: str
    key: str
    reply: str = ""


class TaskSettings(NamedTuple):
    """What the generators read: the largest number of digits of an operand, and lengths of strings."""

    max_digits: int
    min_letters: int
    max_letters: int


def _operand(rng: random.Random, digits: int) -> int:
    """A number whose count of digits is uniform in 1..digits, so that short ones are not rare."""
    length = rng.randint(1, digits)
    return rng.randint(0 if length == 1 else 10 ** (length - 1), 10**length - 1)


def addition(rng: random.Random, settings: TaskSettings) -> Question:
    """What is 12+34?"""
    a, b = _operand(rng, settings.max_digits), _operand(rng, settings.max_digits)
    return Question(f"What is {a}+{b}?", str(a + b), f"{min(a, b)}+{max(a, b)}")


def subtraction(rng: random.Random, settings: TaskSettings) -> Question:
    """What is 34-12? The result is never negative."""
    a, b = sorted((_operand(rng, settings.max_digits), _operand(rng, settings.max_digits)), reverse=True)
    return Question(f"What is {a}-{b}?", str(a - b), f"{a}-{b}")


def multiplication(rng: random.Random, settings: TaskSettings) -> Question:
    """What is 3*14? One of the factors has one digit."""
    a, b = _operand(rng, 1), _operand(rng, settings.max_digits)
    if rng.random() < 0.5:
        a, b = b, a
    return Question(f"What is {a}*{b}?", str(a * b), f"{min(a, b)}*{max(a, b)}")


def worked_addition(rng: random.Random, settings: TaskSettings) -> Question:
    """What is 57+68? with the columns worked out: 7+8=15, 5+6+1=12, so 125."""
    question = addition(rng, settings)
    a, b = (int(operand) for operand in question.text.removeprefix("What is ").removesuffix("?").split("+"))
    return question._replace(reply=f"{', '.join(_columns(a, b, 1))}, so {question.answer}")


def worked_subtraction(rng: random.Random, settings: TaskSettings) -> Question:
    """What is 52-17? with the columns worked out: 12-7=5, 5-1-1=3, so 35."""
    question = subtraction(rng, settings)
    a, b = (int(operand) for operand in question.text.removeprefix("What is ").removesuffix("?").split("-"))
    return question._replace(reply=f"{', '.join(_columns(a, b, -1))}, so {question.answer}")


def _columns(a: int, b: int, sign: int) -> Iterator[str]:
    """The columns of ``a + sign * b``, ones first; a carry (or what was borrowed) is written as a third term."""
    carry = 0
    mark = "+" if sign > 0 else "-"
    for place in range(len(str(max(a, b)))):
        upper, lower = a // 10**place % 10, b // 10**place % 10
        result = upper + sign * (lower + carry)
        borrowed = 10 if result < 0 else 0
        written = f"{upper + borrowed}{mark}{lower}" + (f"{mark}{carry}" if carry else "")
        carry = 1 if borrowed or result > 9 else 0
        yield f"{written}={result + borrowed}"


def _letters(rng: random.Random, settings: TaskSettings, alphabet: str = string.ascii_lowercase) -> list[str]:
    return rng.choices(alphabet, k=rng.randint(settings.min_letters, settings.max_letters))


def reverse(rng: random.Random, settings: TaskSettings) -> Question:
    """Reverse: a b c. Letters are spaced, so that each is a token."""
    letters = _letters(rng, settings)
    question = f"Reverse: {' '.join(letters)}"
    return Question(question, " ".join(reversed(letters)), question)


def sort_letters(rng: random.Random, settings: TaskSettings) -> Question:
    """Sort: c a b."""
    letters = _letters(rng, settings)
    question = f"Sort: {' '.join(letters)}"
    return Question(question, " ".join(sorted(letters)), question)


def uppercase(rng: random.Random, settings: TaskSettings) -> Question:
    """Uppercase: a b c."""
    letters = _letters(rng, settings)
    question = f"Uppercase: {' '.join(letters)}"
    return Question(question, " ".join(letters).upper(), question)


def count_letters(rng: random.Random, settings: TaskSettings) -> Question:
    """Count a: b a n a n a. The letters come from a few, so that counts differ."""
    letters = _letters(rng, settings, "".join(rng.sample(string.ascii_lowercase, 3)))
    wanted = rng.choice(letters)
    question = f"Count {wanted}: {' '.join(letters)}"
    return Question(question, str(letters.count(wanted)), question)


OWN_TASKS: Mapping[str, Callable[[random.Random, TaskSettings], Question]] = {
    "addition": addition,
    "subtraction": subtraction,
    "multiplication": multiplication,
    "worked-addition": worked_addition,
    "worked-subtraction": worked_subtraction,
    "reverse": reverse,
    "sort-letters": sort_letters,
    "uppercase": uppercase,
    "count-letters": count_letters,
}

#: Settings of reasoning-gym tasks that make them short enough for a small model; others run with their own defaults.
GYM_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "basic_arithmetic": {
        "min_terms": 2,
        "max_terms": 2,
        "min_digits": 1,
        "max_digits": 2,
        "operators": ("+", "-"),
        "allow_parentheses": False,
        "allow_negation": False,
    },
    "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
    "count_bits": {"min_n": 1, "max_n": 1023},
    "gcd": {"max_value": 99},
    "lcm": {"max_value": 20},
    "letter_counting": {"min_words": 1, "max_words": 4},
    "prime_factorization": {"max_value": 200},
    "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "spell_backward": {"min_word_len": 3, "max_word_len": 6},
}

DEFAULT_TASKS = (
    *OWN_TASKS,
    *(GYM + name for name in ("basic_arithmetic", "chain_sum", "letter_counting", "spell_backward")),
)


@validate_call
def tasks(
    *,
    names: Sequence[str] = DEFAULT_TASKS,
    count: int = 1000,
    seed: int = 0,
    split: Split = "train",
    heldout_percent: float = 10.0,
    max_digits: int = 2,
    min_letters: int = 3,
    max_letters: int = 5,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Yield items of every task, dealt in turn: ``{"messages", "source", "task", "verifier", "answer"}`` (+
    "metadata").

    No question occurs twice. A task with fewer questions than asked for gives what it has.

    Args:
        names: own tasks (`OWN_TASKS`), and ``"reasoning-gym/NAME"`` for any text task of reasoning-gym.
        count: items of each task.
        seed: of the generators; the split does not depend on it.
        split: "train", "heldout" or "all".
        heldout_percent: share of questions that are held out.
        max_digits: of an operand of the arithmetic tasks.
        min_letters, max_letters: of the string tasks.
        options: reasoning-gym settings by task name (without prefix), over `GYM_OPTIONS`.

    Raises:
        UserError: an unknown task or setting, or reasoning-gym is wanted and not installed.
    """
    check_split(split, heldout_percent, "source tasks")
    if count < 1 or not 1 <= max_digits <= 9 or not 1 <= min_letters <= max_letters:
        raise UserError(
            f"count={count}, max_digits={max_digits}, min_letters={min_letters}, max_letters={max_letters}",
            where="source tasks",
            remedy="give count >= 1, max_digits in 1..9 and 1 <= min_letters <= max_letters",
        )
    settings = TaskSettings(max_digits, min_letters, max_letters)
    candidates = [_candidates(name, seed, settings, options or {}) for name in dict.fromkeys(names)]
    streams = [_distinct(stream, count, split, heldout_percent) for stream in candidates]
    while streams:
        left = []
        for stream in streams:
            if (item := next(stream, None)) is not None:
                left.append(stream)
                yield item
        streams = left


_Candidate = tuple[str, dict[str, Any]]  # what decides the split, and the item


def _distinct(
    candidates: Iterator[_Candidate], count: int, split: Split, heldout_percent: float
) -> Iterator[Mapping[str, Any]]:
    """The first `count` items of the split whose questions differ."""
    seen: set[str] = set()
    misses = 0
    for key, item in candidates:
        question = item["messages"][0]["content"]
        if question in seen or not in_split(key, split, heldout_percent):
            misses += 1
            if misses >= PATIENCE:
                return
            continue
        misses = 0
        seen.add(question)
        yield item
        if len(seen) == count:
            return


def _candidates(
    name: str, seed: int, settings: TaskSettings, options: Mapping[str, Mapping[str, Any]]
) -> Iterator[_Candidate]:
    if name.startswith(GYM):
        gym_name = name.removeprefix(GYM)
        return _gym_candidates(gym_name, seed, {**GYM_OPTIONS.get(gym_name, {}), **options.get(gym_name, {})})
    if name not in OWN_TASKS:
        raise UserError(
            f"unknown task {name!r}", where="source tasks", remedy=f"use {', '.join(OWN_TASKS)} or {GYM}NAME"
        )
    return _own_candidates(name, seed, settings)


def _own_candidates(name: str, seed: int, settings: TaskSettings) -> Iterator[_Candidate]:
    rng = random.Random(f"{seed}/{name}")
    while True:
        question = OWN_TASKS[name](rng, settings)
        item = _item(question.text, question.reply or question.answer, name, "final" if question.reply else "exact")
        yield question.key, {**item, "answer": question.answer}


def _gym_candidates(name: str, seed: int, options: Mapping[str, Any]) -> Iterator[_Candidate]:
    gym = import_reasoning_gym()
    try:
        dataset = gym.create_dataset(name, size=1 << 30, seed=seed, **options)  # lazy: an item is made when it is read
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"reasoning-gym refuses the task {name!r}", where="source tasks", remedy=str(error)) from None

    def generate() -> Iterator[_Candidate]:
        index = 0
        while True:
            entry = dataset[index]
            index += 1
            question, answer = entry["question"].strip(), entry["answer"]
            if isinstance(answer, str):  # a few tasks have items that only a program can answer
                item = _item(question, answer, GYM + name, "reasoning-gym")
                yield question, {**item, "metadata": entry["metadata"]}

    return generate()


def _item(question: str, answer: str, task: str, verifier: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "source": "tasks",
        "task": task,
        "verifier": verifier,
        "answer": answer,
    }
