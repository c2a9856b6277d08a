"""``GET /v1/models`` and ``/v1/models/{id}``: the one model that is served, as OpenAI or as Anthropic lists it.

Source: https://platform.openai.com/docs/api-reference/models and https://docs.claude.com/en/api/models-list.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request

from fulmen_serving.api.answer_route import check_model
from fulmen_serving.api.anthropic_error import speaks_anthropic
from fulmen_serving.service import ChatService


def models_router(service: ChatService) -> APIRouter:
    """Make the two routes over `service`."""
    router = APIRouter(prefix="/v1/models")
    served = service.model
    openai_model = {"id": served.name, "object": "model", "created": served.created, "owned_by": "fulmen"}
    anthropic_model = {
        "id": served.name,
        "type": "model",
        "display_name": served.name,
        "created_at": datetime.fromtimestamp(served.created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": service.max_context,
        "max_tokens": service.max_context,
    }

    @router.get("")
    async def list_models(request: Request) -> dict[str, Any]:
        """The one model that is served, in Anthropic's form for a request with the header anthropic-version."""
        if speaks_anthropic(request.scope):
            return {"data": [anthropic_model], "has_more": False, "first_id": served.name, "last_id": served.name}
        return {"object": "list", "data": [openai_model]}

    @router.get("/{name:path}")
    async def retrieve_model(request: Request, name: str) -> dict[str, Any]:
        """The model, if it is the one that is served."""
        check_model(name, service)
        return anthropic_model if speaks_anthropic(request.scope) else openai_model

    return router
