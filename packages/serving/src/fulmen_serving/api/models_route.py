"""``GET /v1/models`` and ``/v1/models/{id}``: what is served, as OpenAI or as Anthropic lists it.

Source: https://platform.openai.com/docs/api-reference/models and https://docs.claude.com/en/api/models-list; `parent`,
which an adapter changes, is vLLM's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request

from fulmen_serving.api.anthropic_error import speaks_anthropic
from fulmen_serving.served_model import ServedModel
from fulmen_serving.service import ChatService


def models_router(service: ChatService) -> APIRouter:
    """Make the two routes over `service`."""
    router = APIRouter(prefix="/v1/models")

    @router.get("")
    async def list_models(request: Request) -> dict[str, Any]:
        """The model and its adapters, in Anthropic's form for a request with the header anthropic-version."""
        models = await service.models()
        if speaks_anthropic(request.scope):
            data = [_anthropic(model, service.max_context) for model in models]
            return {"data": data, "has_more": False, "first_id": models[0].name, "last_id": models[-1].name}
        return {"object": "list", "data": [_openai(model) for model in models]}

    @router.get("/{name:path}")
    async def retrieve_model(request: Request, name: str) -> dict[str, Any]:
        """One of them."""
        model = await service.find_model(name)
        return _anthropic(model, service.max_context) if speaks_anthropic(request.scope) else _openai(model)

    return router


def _openai(model: ServedModel) -> dict[str, Any]:
    described = {"id": model.name, "object": "model", "created": model.created, "owned_by": "fulmen"}
    return described | ({"parent": model.parent} if model.parent else {})


def _anthropic(model: ServedModel, max_context: int) -> dict[str, Any]:
    return {
        "id": model.name,
        "type": "model",
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": max_context,
        "max_tokens": max_context,
    }
