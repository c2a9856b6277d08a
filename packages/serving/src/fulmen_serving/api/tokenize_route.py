"""``POST /tokenize`` and ``POST /detokenize``: what the model would see, and back. The shapes are vLLM's.

Source: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html (Tokenizer API).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from fulmen_core.errors import UserError
from fulmen_serving.api.answer_route import body_schema
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.chat_request import ChatMessage, check_turns
from fulmen_serving.api.strict_request import StrictModel, fields_of, validate
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import ChatService


class TokenizeRequest(StrictModel):
    """A text (`prompt`) or a conversation (`messages`), one of them.

    Attributes:
        add_special_tokens: of a text: with what opens a document, as ``/v1/completions`` has it; true unless said.
        add_generation_prompt: of a conversation: with the opening of the answer, as it is answered; true unless said.
        return_token_strs: also return each token's text.
    """

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(StrictModel):
    """Token ids to turn into text, special tokens included."""

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0)]]


def tokenize_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the two routes over `service`. Neither runs the model."""
    router = APIRouter()
    tokenizer = service.tokenizer

    @router.post("/tokenize", openapi_extra=body_schema(TokenizeRequest))
    async def tokenize(request: Request) -> dict[str, Any]:
        """The token ids of a text or a conversation."""
        asked = validate(
            TokenizeRequest,
            await read_json_object(request, max_body_bytes),
            fields_of(TokenizeRequest, {"messages": ChatMessage}),
        )
        await service.find_model(asked.model)
        tokens = await asyncio.to_thread(_encode, service, asked)
        answer: dict[str, Any] = {"count": len(tokens), "max_model_len": service.max_context, "tokens": tokens}
        if asked.return_token_strs:
            answer["token_strs"] = [tokenizer.decode([token], skip_special=False) for token in tokens]
        return answer

    @router.post("/detokenize", openapi_extra=body_schema(DetokenizeRequest))
    async def detokenize(request: Request) -> dict[str, str]:
        """The text of token ids; what is no UTF-8 becomes U+FFFD."""
        fields = await read_json_object(request, max_body_bytes)
        asked = validate(DetokenizeRequest, fields, fields_of(DetokenizeRequest))
        await service.find_model(asked.model)
        try:
            return {"prompt": tokenizer.decode(asked.tokens, skip_special=False)}
        except UserError as error:
            raise Refusal(400, str(error), code="invalid_value", param="tokens") from None

    return router


def _encode(service: ChatService, asked: TokenizeRequest) -> list[int]:
    tokenizer = service.tokenizer
    if (asked.prompt is None) == (asked.messages is None):
        raise Refusal(400, "Give either 'prompt' or 'messages'", code="invalid_value", param="prompt")
    check_turns(asked.messages or ())
    if asked.messages is None and asked.add_generation_prompt is not None:
        raise Refusal(400, "Needs 'messages'", code="invalid_value", param="add_generation_prompt")
    if asked.prompt is None and asked.add_special_tokens is not None:
        raise Refusal(400, "Needs 'prompt'", code="invalid_value", param="add_special_tokens")
    try:
        if asked.prompt is not None:
            encode = tokenizer.encode if asked.add_special_tokens is False else tokenizer.encode_prompt
            return encode(asked.prompt)
        conversation = [message.turn() for message in asked.messages or ()]
        return tokenizer.encode_chat(conversation, add_generation_prompt=asked.add_generation_prompt is not False)
    except UserError as error:
        field = "prompt" if asked.messages is None else "messages"
        raise Refusal(400, str(error), code="invalid_value", param=field) from None
