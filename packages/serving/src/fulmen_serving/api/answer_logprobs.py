"""Log probabilities as OpenAI's chat and text completions write them.

Sources: https://platform.openai.com/docs/api-reference/chat/object (logprobs) and /completions/object (logprobs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fulmen_core.log_probabilities import LogProbability
from fulmen_core.tokenizer import Tokenizer
from fulmen_serving.engine.answer_logprobs import AnswerToken


class LogprobsForm:
    """Spells the tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def chat(self, tokens: Sequence[AnswerToken]) -> dict[str, Any]:
        """The object of a chat choice, of all tokens of the answer, with reasoning and calls."""
        content = [
            {
                **self._entry(token.logprobs.taken),
                "top_logprobs": [self._entry(other) for other in token.logprobs.likeliest],
            }
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def completion(self, tokens: Sequence[AnswerToken]) -> dict[str, Any]:
        """The object of a text choice. Offsets are characters of the choice's text."""
        return {
            "tokens": [self._word(token.logprobs.taken.token) for token in tokens],
            "token_logprobs": [token.logprobs.taken.log_probability for token in tokens],
            "top_logprobs": [
                {
                    self._word(other.token): other.log_probability
                    for other in (*token.logprobs.likeliest, token.logprobs.taken)
                }
                for token in tokens
            ],
            "text_offset": [token.start for token in tokens],
        }

    def _entry(self, of: LogProbability) -> dict[str, Any]:
        """A special token has a name, and no bytes: it is no text."""
        data = self._tokenizer.token_bytes(of.token, skip_special=False)
        spelled = None if of.token in self._tokenizer.special_ids else list(data)
        return {"token": data.decode("utf-8", "replace"), "logprob": of.log_probability, "bytes": spelled}

    def _word(self, token: int) -> str:
        """A token as a key: what is no text alone is spelled by its bytes, as OpenAI does."""
        data = self._tokenizer.token_bytes(token, skip_special=False)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
