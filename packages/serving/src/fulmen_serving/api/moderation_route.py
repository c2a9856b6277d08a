"""``POST /v1/moderations``: what the guard (RAISE-3) says of a text, under OpenAI's names of the categories.

Source: https://platform.openai.com/docs/api-reference/moderations.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from fulmen_core.guard import Guard, InputVerdict
from fulmen_serving.api.answer_route import body_schema
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.strict_request import StrictModel, fields_of, validate
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import ChatService

MAX_INPUTS = 32

#: OpenAI's categories, all of which a result has.
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class TextInput(StrictModel):
    """A text to judge."""

    type: Literal["text"]
    text: str


def _inputs_of(given: object) -> object:
    """A text or texts as parts. Parts of other types are refused by their type."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list):
        return given
    inputs = [{"type": "text", "text": one} if isinstance(one, str) else one for one in given]
    for index, one in enumerate(inputs):
        kind = one.get("type") if isinstance(one, dict) else None
        if kind != "text":
            raise PydanticCustomError("input", f"input {index} is of type {kind!r}; only texts are supported")
    return inputs


class ModerationRequest(StrictModel):
    """The body of a request for a judgement.

    Attributes:
        input: a text or texts; each has a result of its own.
        model: the guard's name, if one is given.
    """

    input: Annotated[
        list[TextInput],
        Field(min_length=1, max_length=MAX_INPUTS),
        BeforeValidator(
            _inputs_of,
            json_schema_input_type=str | Annotated[list[str | TextInput], Field(min_length=1, max_length=MAX_INPUTS)],
        ),
    ]
    model: str | None = None


def moderation_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the route over `service`."""
    router = APIRouter()

    @router.post("/v1/moderations", openapi_extra=body_schema(ModerationRequest))
    async def create_moderation(request: Request) -> dict[str, Any]:
        """Judge texts as the guard judges what a user says. The model does not run."""
        asked = validate(
            ModerationRequest,
            await read_json_object(request, max_body_bytes),
            fields_of(ModerationRequest, {"input": TextInput}),
        )
        guard = service.required_guard
        if asked.model not in (None, guard.name):
            raise Refusal(
                404,
                f"The model '{asked.model}' does not exist; the guard of this server is '{guard.name}'",
                code="model_not_found",
                param="model",
            )
        verdicts = await service.judge([one.text for one in asked.input])
        return {
            "id": f"modr-{uuid.uuid4().hex}",
            "model": guard.name,
            "results": [_result(guard, verdict) for verdict in verdicts],
        }

    return router


def _result(guard: Guard, verdict: InputVerdict) -> dict[str, Any]:
    """A category is true where the guard found one that OpenAI's covers, with the highest score among them."""
    if verdict.category == "guard_failure":
        raise Refusal(500, "The safety guard failed, so the text was not judged", code="guard_failed")
    crosswalk = guard.crosswalk("openai")
    scores = {
        code: max((found.score for found in verdict.findings if found.category in crosswalk.get(code, ())), default=0.0)
        for code in CATEGORIES
    }
    found = {finding.category for finding in verdict.findings}
    categories = {code: not found.isdisjoint(crosswalk.get(code, ())) for code in CATEGORIES}
    return {
        "flagged": verdict.action == "block" or any(categories.values()),
        "categories": categories,
        "category_scores": scores,
        "category_applied_input_types": {code: ["text"] if crosswalk.get(code) else [] for code in CATEGORIES},
        "guard": {  # beyond OpenAI's shape: what the guard would do, and its own finer findings
            "action": verdict.action,
            "category": verdict.category,
            "policy_version": guard.policy_version,
            "findings": [
                {
                    "detector": finding.detector,
                    "category": finding.category,
                    "label": finding.label,
                    "score": finding.score,
                    "start": finding.start,
                    "end": finding.end,
                }
                for finding in verdict.findings
            ],
        },
    }
