"""``POST /v1/moderations``: what the guard (RAISE-3) says of a text, under OpenAI's names of the categories.

Source: https://platform.openai.com/docs/api-reference/moderations.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
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
    """A text, texts, or the parts of one input, as a list of inputs. Parts of other types are refused by their type."""
    if isinstance(given, str):
        return [[{"type": "text", "text": given}]]
    if not isinstance(given, list) or not given:
        return given
    if all(isinstance(one, str) for one in given):
        return [[{"type": "text", "text": one}] for one in given]
    for index, one in enumerate(given):
        kind = one.get("type") if isinstance(one, dict) else type(one).__name__
        if kind != "text":
            raise PydanticCustomError("input", f"part {index} of 'input' is of type {kind!r}; only texts are supported")
    return [given]


class ModerationRequest(StrictModel):
    """The body of a request for a judgement.

    Attributes:
        input: a text; texts, of which each has a result of its own; or the parts of one input, which has one.
        model: the guard's name, if one is given.
    """

    input: Annotated[
        list[Annotated[list[TextInput], Field(min_length=1, max_length=MAX_INPUTS)]],
        Field(min_length=1, max_length=MAX_INPUTS),
        BeforeValidator(
            _inputs_of,
            json_schema_input_type=str
            | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
            | Annotated[list[TextInput], Field(min_length=1, max_length=MAX_INPUTS)],
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
        judged = await service.judge(["\n".join(part.text for part in parts) for parts in asked.input])
        return {
            "id": f"modr-{uuid.uuid4().hex}",
            "model": guard.name,
            "results": [_result(guard, verdict, scores) for verdict, scores in judged],
        }

    return router


def _result(guard: Guard, verdict: InputVerdict, known: Mapping[str, float]) -> dict[str, Any]:
    """A category is true where the guard found one that OpenAI's covers. Its score is the highest among them, of what
    was found and of what is `known` of the text where nothing reached a threshold.
    """
    if verdict.category == "guard_failure":
        raise Refusal(500, "The safety guard failed, so the text was not judged", code="guard_failed")
    crosswalk = guard.crosswalk("openai")
    best = dict(known)
    for finding in verdict.findings:
        best[finding.category] = max(best.get(finding.category, 0.0), finding.score)
    scores = {code: max((best.get(one, 0.0) for one in crosswalk.get(code, ())), default=0.0) for code in CATEGORIES}
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
            "category_scores": best,
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
