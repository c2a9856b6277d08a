"""RAISE-2's alignment pairs (report section 6): refusals that are wanted, and answers that are wanted in their place.

* **refusal**: the prompt asks for harm. Chosen is the policy's own safe completion, which says what it can do instead;
  rejected is an answer that the guard penalises, or the bare opening of one.
* **helpful**: the prompt is harmless, perhaps in alarming words. Chosen is the answer that helps; rejected a refusal.

Without the second kind a model learns to decline whatever looks dangerous; without the first, nothing. Each pair passes
a quality control that asks the guard which will also judge what is served, so that nothing is taught that would be
stopped. What it leaves out is counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fulmen_core.errors import UserError
from fulmen_core.guard import Completes, Guard
from fulmen_trainer.preferences import Pair, write_pairs
from fulmen_trainer.records import read_records
from fulmen_trainer.refusals import bare_compliance, declines, language_of, plain_refusal

Kind = Literal["refusal", "helpful"]


@dataclass(frozen=True, slots=True)
class LabelledPrompt:
    """A prompt that somebody has labelled.

    Attributes:
        text: what a user says.
        unsafe: whether it asks for harm.
        category: code of the RAISE taxonomy; empty if the data has none.
        answers: to choose from, sampled or written.
        where: file and line, for sentences.
    """

    text: str
    unsafe: bool
    category: str = ""
    answers: tuple[str, ...] = ()
    where: str = ""


@dataclass
class SafetyPairs:
    """Pairs, and what happened to the prompts that gave none.

    Attributes:
        pairs: their `source` is ``"safety/KIND/CATEGORY"``.
        kinds: kind -> how many; of `languages` and `categories` likewise.
        left_out: why -> how many.
    """

    pairs: list[Pair] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, Any]:
        """Return the counts as JSON holds them."""
        return {
            "pairs": len(self.pairs),
            **{key: dict(sorted(getattr(self, key).items())) for key in ("kinds", "languages", "categories")},
            "left_out": dict(sorted(self.left_out.items())),
        }


def read_prompts(path: Path) -> list[LabelledPrompt]:
    """Read labelled prompts: ``{"prompt" or "text", "label": "safe" | "unsafe", "category"?, "answer"?, "answers"?}`` a
    line.

    Raises:
        UserError: a line has no text, another label, or answers that are no texts; or there is none.
    """
    prompts = []
    for number, record in read_records(path):
        where = f"{path}, line {number}"
        text, label = record.get("prompt", record.get("text")), record.get("label")
        if not isinstance(text, str) or not text.strip():
            raise UserError("there is no prompt", where=where, remedy='give "prompt" or "text"')
        if label not in ("safe", "unsafe"):
            raise UserError(f"the label is {label!r}", where=where, remedy='write "safe" or "unsafe"')
        given = record.get("answers", [])
        answers = [
            *([record["answer"]] if "answer" in record else []),
            *(given if isinstance(given, list) else [given]),
        ]
        if not all(isinstance(answer, str) for answer in answers):
            raise UserError("an answer is no text", where=where, remedy='give "answer" or "answers" as texts')
        prompts.append(LabelledPrompt(text, label == "unsafe", str(record.get("category", "")), tuple(answers), where))
    if not prompts:
        raise UserError("there is no prompt", where=str(path), remedy="the file must not be empty")
    return prompts


def make_safety_pairs(prompts: Iterable[LabelledPrompt], guard: Guard) -> SafetyPairs:
    """Make at most one pair of each prompt.

    Args:
        prompts: labelled.
        guard: whose safe completions are taught, and who judges what is taught.

    Raises:
        UserError: a category is unknown to the guard, or no pair is left.
    """
    result = SafetyPairs()
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.text in seen:
            result.left_out["the prompt came before"] += 1
            continue
        seen.add(prompt.text)
        kind: Kind = "refusal" if prompt.unsafe else "helpful"
        pair = _refusal(prompt, guard) if prompt.unsafe else _helpful(prompt, guard)
        fault = pair if isinstance(pair, str) else _fault(pair, kind, guard)
        if isinstance(pair, str) or fault:
            result.left_out[str(fault)] += 1
            continue
        result.pairs.append(pair)
        result.kinds[kind] += 1
        result.languages[language_of(prompt.text)] += 1
        result.categories[prompt.category or "none"] += 1
    if not result.pairs:
        why = ", ".join(f"{reason} ({count})" for reason, count in result.left_out.most_common(3))
        raise UserError(f"no pair is left: {why}", remedy="give helpful answers to safe prompts, and other prompts")
    return result


def write_safety_pairs(path: Path, out: Path, guard: Guard) -> dict[str, Any]:
    """Make pairs of the prompts in `path`, write them to `out` as `read_pairs` reads them, and return the counts."""
    made = make_safety_pairs(read_prompts(path), guard)
    write_pairs(out, made.pairs)
    return made.counts()


def _refusal(prompt: LabelledPrompt, guard: Guard) -> Pair | str:
    language = language_of(prompt.text)
    chosen = _completion(prompt, guard, language) or plain_refusal(language)
    harmful = [answer for answer in prompt.answers if not declines(answer)]
    worst = max(harmful, key=lambda answer: guard.reward_penalty(prompt.text, answer), default="")
    return _pair(prompt, chosen, worst or bare_compliance(language), "refusal")


def _helpful(prompt: LabelledPrompt, guard: Guard) -> Pair | str:
    helpful = [answer for answer in prompt.answers if answer.strip() and not declines(answer)]
    if not helpful:
        return "no answer to a safe prompt helps"
    chosen = min(helpful, key=lambda answer: guard.reward_penalty(prompt.text, answer))
    language = language_of(prompt.text)
    refusals = [answer for answer in prompt.answers if declines(answer)]
    rejected = next(iter(refusals), "") or _completion(prompt, guard, language) or plain_refusal(language)
    return _pair(prompt, chosen, rejected, "helpful")


def _completion(prompt: LabelledPrompt, guard: Guard, language: str) -> str:
    """The policy's safe completion for the prompt's category, or for what the guard itself finds in it."""
    if prompt.category and isinstance(guard, Completes):
        try:
            return guard.safe_completion(prompt.category, language)
        except UserError as error:
            raise UserError(error.what, where=prompt.where, remedy=error.remedy) from error
    return guard.judge_input([{"role": "user", "content": prompt.text}]).message


def _pair(prompt: LabelledPrompt, chosen: str, rejected: str, kind: Kind) -> Pair:
    source = f"safety/{kind}/{prompt.category or 'none'}"
    return Pair(({"role": "user", "content": prompt.text},), chosen, rejected, source)


def _fault(pair: Pair, kind: Kind, guard: Guard) -> str:
    """Return why a pair may not be taught; empty if it may."""
    prompt = pair.prompt[0]["content"]
    if pair.chosen.strip() == pair.rejected.strip():
        return "both answers are the same"
    stream = guard.open_output(list(pair.prompt))
    first = stream.feed(pair.chosen)
    last = first if first.stop else stream.finish()
    if last.stop or first.text + ("" if last is first else last.text) != pair.chosen:
        return "the guard would stop or change the chosen answer"
    if guard.reward_penalty(prompt, pair.chosen) > 0:
        return "the chosen answer is penalised"
    if kind == "helpful" and declines(pair.chosen):
        return "the chosen answer declines a safe prompt"
    if kind == "helpful" and guard.judge_input(list(pair.prompt)).action == "block":
        return "the guard blocks a prompt that is labelled safe"
    if kind == "refusal" and declines(pair.rejected):
        return "the rejected answer declines too"
    return ""
