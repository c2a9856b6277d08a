"""``POST /admin/v1/explain``: what each detector of the guard says of a text, and what each component would do.

For whoever may see the guard's thresholds: they help an attacker. Nothing of the text is kept or recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from fulmen_serving.api.answer_route import body_schema
from fulmen_serving.api.body import read_json_object
from fulmen_serving.api.strict_request import StrictModel, fields_of, validate
from fulmen_serving.service import ChatService

#: Characters of a text that is explained: every view of it is returned.
MAX_CHARACTERS = 100_000


class ExplainRequest(StrictModel):
    """A text to explain."""

    text: Annotated[str, Field(max_length=MAX_CHARACTERS)]


def explain_router(service: ChatService, max_body_bytes: int) -> APIRouter:
    """Make the route over `service`."""
    router = APIRouter(prefix="/admin/v1")

    @router.post("/explain", openapi_extra=body_schema(ExplainRequest))
    async def explain(request: Request) -> Mapping[str, Any]:
        """Explain a text under the server's policy. The model does not run."""
        fields = await read_json_object(request, max_body_bytes)
        asked = validate(ExplainRequest, fields, fields_of(ExplainRequest))
        return await service.explain(asked.text)

    return router
