"""Chat templates of open checkpoints: Jinja2 in a sandbox, with the names that Hugging Face's templates expect.

A template is code from the internet, so it runs in jinja2's immutable sandbox and sees nothing but plain messages.
Environment and helpers follow `transformers.utils.chat_template_utils`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fulmen_core.errors import CorruptArtefact, UserError


class ChatTemplate:
    """One template. Compiled when it is first rendered.

    Args:
        source: the Jinja text.
        special_tokens: what the template may call by name: "bos_token", "eos_token", ...
        where: the file, for sentences.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], where: str) -> None:
        self.source, self._special_tokens, self._where = source, dict(special_tokens), where

    def names(self, variable: str) -> bool:
        """Whether the template reads `variable`, "tools" for example."""
        return re.search(rf"\b{variable}\b", self.source) is not None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The conversation as text.

        Args:
            messages: each with "role" and "content", and what else the template reads.
            add_generation_prompt: end with the opening of an answer.
            tools: the functions that may be called, as in OpenAI's `tools`; None for none.

        Raises:
            UserError: the template refuses the conversation, for example because roles do not alternate.
            CorruptArtefact: the template is no valid Jinja.
        """
        try:
            return self._compiled.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=tools,
                documents=None,
                **self._special_tokens,
            )
        except TemplateError as error:
            raise UserError(
                f"the model's chat template refuses the conversation ({' '.join(str(error).split())})",
                remedy="give the roles that this model was trained with, in their order",
            ) from error
        except (TypeError, ValueError, KeyError, ArithmeticError, RecursionError) as error:
            raise UserError(
                f"the model's chat template fails on the conversation ({type(error).__name__}: {error})"
            ) from error

    @cached_property
    def _compiled(self) -> Template:
        try:
            return _environment().from_string(self.source)
        except TemplateError as error:
            raise CorruptArtefact(
                f"the chat template is no valid Jinja ({' '.join(str(error).split())})", where=self._where
            ) from error


class _Generation(Extension):
    """``{% generation %}`` marks what an assistant says, for training; rendering passes it through."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """JSON as it is: jinja2's own filter escapes what HTML would trip over."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
