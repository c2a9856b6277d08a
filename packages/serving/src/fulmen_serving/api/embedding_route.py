"""``POST /v1/embeddings``: texts or token ids in, one vector for each out.

Source: https://platform.openai.com/docs/api-reference/embeddings/create.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from fulmen_serving.api.answer_connection import unless_left
from fulmen_serving.api.answer_route import body_schema
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.strict_request import StrictModel, fields_of, validate, without_neutral
from fulmen_serving.embedding import embed
from fulmen_serving.prompt import Prompt, TextPrompt, TokenPrompt
from fulmen_serving.service import ChatService

#: Texts of one request, as many as OpenAI allows.
MAX_INPUTS = 2048

#: OpenAI's fields that are not supported. A shorter vector would be a part of one that was not trained to be cut.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {"dimensions": ()}


def _is_ids(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in given)


def _inputs_of(given: object) -> object:
    """One input as the only one of a list. An input is a text or a list of token ids, and not empty."""
    inputs = [given] if isinstance(given, str) or (given and _is_ids(given)) else given
    if not isinstance(inputs, list):
        raise PydanticCustomError("input", "it must be a text, a list of token ids, or a list of either")
    for index, one in enumerate(inputs):
        if not (isinstance(one, str) or _is_ids(one)):
            raise PydanticCustomError("input", f"input {index} is neither a text nor a list of token ids")
        if not one:
            raise PydanticCustomError("input", f"input {index} is empty")
    return [one if isinstance(one, str) else tuple(one) for one in inputs]


_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_IDS: dict[str, Any] = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_LIST: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS}
_INPUT = {"anyOf": [_TEXT, _IDS, _LIST | {"items": _TEXT}, _LIST | {"items": _IDS}]}


class EmbeddingRequest(StrictModel):
    """The body of a request for embeddings."""

    model: str
    input: Annotated[
        list[str | tuple[int, ...]],
        Field(min_length=1, max_length=MAX_INPUTS),
        BeforeValidator(_inputs_of),
        WithJsonSchema(_INPUT),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None  # names the user; a vector does not depend on it

    @property
    def prompts(self) -> list[Prompt]:
        """What the model is to read."""
        return [EmbeddedText(one) if isinstance(one, str) else EmbeddedTokens(one) for one in self.input]


@dataclass(frozen=True, slots=True)
class EmbeddedText(TextPrompt):
    """A text to embed, behind the mark that opens a document."""

    field: ClassVar[str] = "input"
    id_prefix: ClassVar[str] = "embd-"


@dataclass(frozen=True, slots=True)
class EmbeddedTokens(TokenPrompt):
    """Token ids to embed, as they are."""

    field: ClassVar[str] = "input"
    id_prefix: ClassVar[str] = "embd-"


def embedding_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the route over `service`."""
    router = APIRouter()

    @router.post("/v1/embeddings", openapi_extra=body_schema(EmbeddingRequest))
    async def create_embeddings(request: Request) -> Response:
        """Read texts or token ids, and return the model's last hidden state of each, at length 1."""
        fields = without_neutral(await read_json_object(request, max_body_bytes), UNSUPPORTED)
        asked = validate(EmbeddingRequest, fields, fields_of(EmbeddingRequest, unsupported={"": UNSUPPORTED}))
        model = await service.find_model(asked.model)
        embedded = await unless_left(request, embed(service, model, asked.prompts))
        write = _base64 if asked.encoding_format == "base64" else _floats
        data = [
            {"object": "embedding", "index": index, "embedding": write(vector_D)}
            for index, vector_D in enumerate(embedded.vectors_D)
        ]
        usage = {"prompt_tokens": embedded.prompt_tokens, "total_tokens": embedded.prompt_tokens}
        return JSONResponse({"object": "list", "data": data, "model": model.name, "usage": usage})

    return router


def _floats(vector_D: NDArray[np.float32]) -> list[float]:
    floats: list[float] = vector_D.tolist()
    return floats


def _base64(vector_D: NDArray[np.float32]) -> str:
    """The values as little-endian float32."""
    return base64.b64encode(vector_D.astype("<f4").tobytes()).decode("ascii")
