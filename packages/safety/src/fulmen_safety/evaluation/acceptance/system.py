"""The system under test: a guard alone, or a model behind it that is asked over OpenAI's protocol."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fulmen_core.errors import UserError
from fulmen_safety.evaluation.judging import REFUSALS
from fulmen_safety.evaluation.refusal import is_refusal
from fulmen_safety.guard import RaiseGuard


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a question.

    Args:
        text: what was delivered; "" where there is no model to answer.
        refused: the guard refused, or the answer is a refusal.
        by: who refused: "guard at input", "guard at output", "model" or "".
    """

    text: str
    refused: bool
    by: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model behind OpenAI's chat protocol.

    Args:
        url: e.g. ``"http://localhost:8000/v1"``.
        model: its name there.
        key: sent as a bearer token; "" for none. Never recorded.
    """

    url: str
    model: str
    key: str = ""
    max_tokens: int = 512
    timeout: float = 300.0

    def complete(self, prompt: str) -> str:
        """Ask one question, greedily.

        An answer that the server's own guard cut off (``finish_reason="content_filter"``) is returned as delivered.

        Raises:
            UserError: the server cannot be reached, refuses, or answers something else.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                content = json.load(response)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            said = error.read(400).decode("utf-8", "replace").strip()
            raise UserError(f"the model answered {error.code}: {said}", where=address, remedy="see its log") from error
        except (OSError, http.client.HTTPException) as error:
            remedy = "is the server running, and is the URL right?"
            raise UserError(f"the model cannot be reached ({error})", where=address, remedy=remedy) from error
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                "the answer is no chat completion", where=address, remedy="give an OpenAI-compatible URL"
            ) from error
        return content or ""


class System:
    """A guard, a model, or a model behind the guard.

    Args:
        guard: None: the model alone is tested, or a server that has its own guard.
        endpoint: None: the guard alone is tested. It answers nothing, so what it allows counts as not refused.
        parallel: questions that are asked at once.
    """

    def __init__(self, guard: RaiseGuard | None, endpoint: Endpoint | None, *, parallel: int = 1) -> None:
        self.guard, self.endpoint, self.parallel = guard, endpoint, parallel

    def ask(self, prompts: Sequence[str]) -> list[Answer]:
        """Ask each question and return what became of it, in order."""
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self._ask, prompts))

    def _ask(self, prompt: str) -> Answer:
        messages: Sequence[dict[str, str]] = [{"role": "user", "content": prompt}]
        if self.guard is not None:
            entered = self.guard.judge_input(messages)
            if entered.action == "block":
                return Answer(entered.message, True, "guard at input")
            prompt = entered.messages[-1]["content"]
        if self.endpoint is None:
            return Answer("", False)
        said = self.endpoint.complete(prompt)
        if self.guard is not None:
            left = self.guard.judge_output(messages, said)
            if left.action in REFUSALS:
                return Answer(left.text, True, "guard at output")
            said = left.text
        return Answer(said, True, "model") if is_refusal(said) else Answer(said, False)
