"""The detectors ``judge`` and ``judge-answer``: each window of a text is put before a chat model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fulmen_raise_judge.prompt import Message, asked
from fulmen_raise_judge.verdict import (
    Malformed,
    Verdict,
    code_of,
    level_probabilities,
    read_llama_guard,
    read_qwen3guard,
)
from fulmen_safety import Finding, UserError
from fulmen_safety.remote import JsonEndpoint, Patience, read_key
from fulmen_safety.settings import Field, Table, read_settings
from fulmen_safety.taxonomy import taxonomy
from fulmen_safety.windows import windows

#: What stands for the question where only the answer is known.
_NOT_SHOWN = "(not shown)"
#: How many of the last turns of a conversation are shown, and characters of each.
_TURNS, _TURN_CHARACTERS = 4, 2000
_ANSWER_TOKENS = 48
_ALTERNATIVES = 8


class Settings(Table):
    """The settings of both detectors in a policy."""

    url: str  # up to and with /v1
    model: str
    key_file: str = ""
    #: "asked": any chat model, told what to do, answers like Llama Guard; "llama-guard" and "qwen3guard": such a model,
    #: whose own chat template does the asking.
    style: Literal["asked", "llama-guard", "qwen3guard"] = "asked"
    categories: tuple[str, ...] | None = None  # None: all that have a code, but prompt_attack
    descriptions: dict[str, str] = Field(default_factory=dict)  # of categories, for the style "asked"
    seconds: float = Field(1.5, gt=0)  # for one window, retries included
    retries: int = Field(1, ge=0, le=5)
    window: int = Field(6000, ge=200)  # characters judged at once
    logprobs: bool = True  # ask for the probability of the verdict
    controversial: float = Field(0.5, ge=0.0, le=1.0)  # score of Qwen3Guard's middle level


class JudgeDetector:
    """Asks a judge about a text as the last turn of a conversation.

    Every failure raises: no answer in time, no verdict in the answer. The policy's ``on_error`` then decides.
    """

    def __init__(
        self, name: str, role: str, settings: Settings, endpoint: JsonEndpoint, before: Sequence[Message]
    ) -> None:
        self.name, self._role, self._settings, self._endpoint, self._before = name, role, settings, endpoint, before
        self._codes = _codes(settings)
        self._wanted = frozenset(_categories(settings))

    def scan(self, text: str) -> list[Finding]:
        """See `fulmen_safety.detector.Detector.scan`: for each window that is unsafe, one finding of each category.

        Raises:
            RemoteFailure: the judge cannot be asked.
            Malformed: it answers with something else than a verdict.
        """
        found = []
        for start, end in windows(text, self._settings.window, self._settings.window // 10):
            score, categories = self._ask(text[start:end])
            found += [Finding(self.name, one, score, start, end, "judged") for one in categories if one in self._wanted]
        return found

    def in_context(self, messages: Sequence[Message]) -> JudgeDetector:
        """Return the judge of an answer to `messages`; see `fulmen_safety.detector`."""
        turns = [turn for turn in messages if turn.get("role") in ("user", "assistant") and turn.get("content")]
        shown = [{"role": turn["role"], "content": turn["content"][-_TURN_CHARACTERS:]} for turn in turns[-_TURNS:]]
        while shown and shown[-1]["role"] != "user":
            shown.pop()
        while shown and shown[0]["role"] != "user":  # the templates of guard models begin with the user
            del shown[0]
        return JudgeDetector(self.name, self._role, self._settings, self._endpoint, shown)

    def _ask(self, text: str) -> tuple[float, tuple[str, ...]]:
        conversation: list[Message] = [{"role": self._role, "content": text}]
        if self._role == "assistant":
            conversation = [*(self._before or [{"role": "user", "content": _NOT_SHOWN}]), *conversation]
        settings = self._settings
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": asked(conversation, self._codes) if settings.style == "asked" else conversation,
            "temperature": 0,
            "max_tokens": _ANSWER_TOKENS,
        }
        if settings.logprobs:
            body |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        answer = self._endpoint.post("chat/completions", body, Patience(settings.seconds, settings.retries))
        said, tokens = _read(answer)
        verdict = read_qwen3guard(said) if settings.style == "qwen3guard" else read_llama_guard(said)
        return self._score(verdict, tokens), verdict.categories

    def _score(self, verdict: Verdict, tokens: Sequence[tuple[str, Mapping[str, float]]]) -> float:
        worth = {"safe": 0.0, "controversial": self._settings.controversial, "unsafe": 1.0}
        likely = level_probabilities(tokens, verdict.level)
        if likely is None:
            return worth[verdict.level]
        return min(sum(worth[level] * share for level, share in likely.items()), 1.0)


def make(settings: Mapping[str, Any]) -> JudgeDetector:
    """Make the detector of what users say.

    Raises:
        UserError: an unknown key or category, no URL, a key file that cannot be read.
    """
    return _made("judge", "user", settings)


def make_answer(settings: Mapping[str, Any]) -> JudgeDetector:
    """Make the detector of answers, as `make` does."""
    return _made("judge-answer", "assistant", settings)


def _made(name: str, role: str, settings: Mapping[str, Any]) -> JudgeDetector:
    where = f"the settings of the detector {name!r}"
    read = read_settings(Settings, settings, where)
    for category in (*(read.categories or ()), *read.descriptions):
        taxonomy().check(category, where)
        if not code_of(category):
            raise UserError(f"the category {category!r} has no code of Llama Guard", where=where, remedy="leave it out")
    return JudgeDetector(name, role, read, JsonEndpoint(read.url, read_key(read.key_file)), ())


def _categories(settings: Settings) -> tuple[str, ...]:
    if settings.categories is not None:
        return settings.categories
    if settings.style == "qwen3guard":
        return tuple(taxonomy().titles)
    # S14 is Llama Guard's code for abuse of an interpreter; a model that was not told so does not mean jailbreaks by it
    return tuple(code for code in taxonomy().titles if code != "prompt_attack")


def _codes(settings: Settings) -> dict[str, str]:
    """Code -> what it covers, for the categories that are wanted."""
    covers: dict[str, list[str]] = {code: [] for code in taxonomy().crosswalk["llama_guard"]}
    for category in _categories(settings):
        if code := code_of(category):
            covers[code].append(settings.descriptions.get(category) or taxonomy().titles[category]["en"])
    return {code: "; ".join(what) for code, what in covers.items() if what}


def _read(answer: Any) -> tuple[str, list[tuple[str, Mapping[str, float]]]]:
    """The judge's words, and its tokens with what might have stood in the place of each; none if it does not tell."""
    try:
        choice = answer["choices"][0]
        said = choice["message"]["content"]
        finish = choice.get("finish_reason")
        told = (choice.get("logprobs") or {}).get("content") or []
        tokens = [(str(one["token"]), _alternatives(one)) for one in told]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Malformed(f"what the judge's server sent is no chat completion: {error!r}") from error
    if not isinstance(said, str) or finish == "length":
        raise Malformed("the judge gave no whole answer" if finish == "length" else "the judge's answer has no text")
    return said, tokens


def _alternatives(one: Mapping[str, Any]) -> Mapping[str, float]:
    listed = [*(one.get("top_logprobs") or []), one]
    return {str(each["token"]): math.exp(min(float(each["logprob"]), 0.0)) for each in listed}
