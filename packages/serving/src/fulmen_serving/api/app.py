"""The application: chat completions, models, health, readiness, metrics."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from fulmen_serving.api.answer_route import check_model
from fulmen_serving.api.chat_route import chat_router
from fulmen_serving.api.completion_route import completion_router
from fulmen_serving.api.edge import Edge
from fulmen_serving.api.errors import install_error_handlers
from fulmen_serving.api.health_route import health_router
from fulmen_serving.api.tokenize_route import tokenize_router
from fulmen_serving.service import ChatService

#: Larger than any prompt that a context of 100,000 tokens could hold in UTF-8.
MAX_BODY_BYTES = 2 << 20
#: FastAPI would trace and log on its own, texts included, where the environment asks for it; older ones would not.
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def make_app(
    service: ChatService, *, version: str = "", max_body_bytes: int = MAX_BODY_BYTES, edge: Edge | None = None
) -> FastAPI:
    """Make the HTTP application over a started service. Whoever made the service closes it."""
    # no /docs: its page would load scripts from a third party
    app = FastAPI(title="Fulmen", version=version or "0", docs_url=None, redoc_url=None, telemetry=_NO_TELEMETRY)
    install_error_handlers(app, service.metrics)
    app.include_router(chat_router(service, max_body_bytes))
    app.include_router(completion_router(service, max_body_bytes))
    app.include_router(tokenize_router(service, max_body_bytes))
    app.include_router(health_router(service))
    model: dict[str, Any] = {
        "id": service.model.name,
        "object": "model",
        "created": service.model.created,
        "owned_by": "fulmen",
    }

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def retrieve_model(name: str) -> dict[str, Any]:
        """The model, if it is the one that is served."""
        check_model(name, service)
        return model

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    if edge is not None:
        edge.install(app, service.metrics, max_body_bytes)
    return app
