"""Embeddings: a text in, the model's own final hidden state of its last token out, as a vector of length 1.

The model was trained to continue texts, not to embed them: the vector is what it knows when it has read the text.
Nothing is generated, so there is nothing for the guard to judge.

Legend: D model width.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError
from fulmen_core.sampling import SamplingParams
from fulmen_core.tokenizer import StreamDecoder
from fulmen_serving.account import TextTally, current_account, current_salt
from fulmen_serving.engine.admission import EngineFull
from fulmen_serving.engine.answer_stream import AnswerStream
from fulmen_serving.engine.answer_text import AnswerText
from fulmen_serving.engine.engine import AnswerFailure, Embedded, EngineStopped
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.engine.stop_strings import StopStrings
from fulmen_serving.prompt import Prompt
from fulmen_serving.refusal import Refusal
from fulmen_serving.served_model import ServedModel
from fulmen_serving.service import ChatService, refusal_when_full


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of one request, in the order of its texts, and how many tokens were read."""

    vectors_D: tuple[NDArray[np.float32], ...]
    prompt_tokens: int


async def embed(service: ChatService, model: ServedModel, prompts: Sequence[Prompt]) -> Embeddings:
    """Read `prompts` with `model`, one of the service's, and return their vectors.

    As many are read at once as the engine runs; the others follow, so that a long list does not fill the queue.

    Raises:
        Refusal: one is too long, the backend gives no hidden states, there is no room, or the backend failed.
    """
    if not model.embeds:
        raise Refusal(
            404,
            f"The backend '{model.backend}' gives no hidden states, so this server has no embeddings; serve "
            "the checkpoint with --backend cpu",
            code="model_not_found",
            param="model",
        )
    begun = time.perf_counter()
    request_id = f"embd-{uuid.uuid4().hex}"
    encoded = await asyncio.to_thread(_encode, service, prompts)
    tokens = sum(map(len, encoded))
    account = current_account.get()
    tally = None if account is None else TextTally(account.admit(model.name, tokens))
    vectors: list[NDArray[np.float32]] = []
    try:
        at_once = service.max_choices
        for first in range(0, len(encoded), at_once):
            vectors += await _read(service, model, encoded[first : first + at_once], f"{request_id}-{first}", tally)
    finally:
        if tally is not None:
            tally.close()
        service.report(request_id, model.name, tokens, time.perf_counter() - begun)
    return Embeddings(tuple(vectors), tokens)


def _encode(service: ChatService, prompts: Sequence[Prompt]) -> list[list[int]]:
    encoded = []
    for index, prompt in enumerate(prompts):
        place = f"input[{index}]" if len(prompts) > 1 else "input"
        try:
            ids = prompt.encode(service.tokenizer)
        except UserError as error:
            raise Refusal(400, str(error), code="invalid_value", param=place) from None
        if len(ids) > service.max_context:
            raise Refusal(
                400,
                f"This model's maximum context length is {service.max_context} tokens, and this input has {len(ids)}",
                code="context_length_exceeded",
                param=place,
            )
        encoded.append(ids)
    return encoded


async def _read(
    service: ChatService, model: ServedModel, encoded: Sequence[list[int]], request_id: str, tally: TextTally | None
) -> list[NDArray[np.float32]]:
    unused = SamplingParams(max_tokens=1)
    requests = [
        (
            GenerationRequest(
                f"{request_id}-{index}",
                ids,
                unused,
                (0,),
                frozenset(),
                salt=current_salt(),
                embed=True,
                adapter=model.adapter,
            ),
            AnswerText(StreamDecoder(service.tokenizer), StopStrings(()), None),
        )
        for index, ids in enumerate(encoded)
    ]
    if tally is not None:
        tally.begin(len(requests))
    try:
        events = AnswerStream(service.engine, requests, tally)
    except (EngineFull, EngineStopped) as error:
        if tally is not None:
            tally.withdraw(len(requests))
        if isinstance(error, EngineFull):
            raise refusal_when_full(error) from None
        raise service.refusal_when_stopping() from None
    vectors: dict[int, NDArray[np.float32]] = {}
    try:
        async for index, event in events:
            match event:
                case Embedded(vector_D):
                    vectors[index] = _unit(vector_D)
                case AnswerFailure(message):
                    raise Refusal(500, message, code="embedding_failed")
    finally:
        events.close()
    return [vectors[index] for index in range(len(requests))]


def _unit(vector_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector at length 1; one that has none stays as it is.

    Raises:
        Refusal: 500, it has values that are no numbers.
    """
    length = float(np.linalg.norm(vector_D.astype(np.float64)))
    if not np.isfinite(length):
        raise Refusal(500, "The model's hidden state is not finite", code="embedding_failed")
    unit_D: NDArray[np.float32] = vector_D if length == 0 else (vector_D / length).astype(np.float32)
    return unit_D
