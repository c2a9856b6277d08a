"""The application: the page, chat completions, models, health, readiness, metrics."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from fulmen_serving.api.answer_route import check_model
from fulmen_serving.api.chat_route import chat_router
from fulmen_serving.api.completion_route import completion_router
from fulmen_serving.api.edge import Edge
from fulmen_serving.api.errors import install_error_handlers
from fulmen_serving.api.page_route import page_router
from fulmen_serving.api.tokenize_route import tokenize_router
from fulmen_serving.service import ChatService

#: Larger than any prompt that a context of 100,000 tokens could hold in UTF-8.
MAX_BODY_BYTES = 2 << 20


def make_app(
    service: ChatService, *, version: str = "", max_body_bytes: int = MAX_BODY_BYTES, edge: Edge | None = None
) -> FastAPI:
    """Make the HTTP application over a started service. Whoever made the service closes it."""
    # no /docs: its page would load scripts from a third party
    app = FastAPI(title="Fulmen", version=version or "0", docs_url=None, redoc_url=None)
    install_error_handlers(app, service.metrics)
    app.include_router(chat_router(service, max_body_bytes))
    app.include_router(completion_router(service, max_body_bytes))
    app.include_router(tokenize_router(service, max_body_bytes))
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

    @app.get("/health")
    async def health() -> Response:
        """200 while the engine runs or is being started again, with the reason; 503 with it once it died for good."""
        if service.engine.fault:
            return JSONResponse({"status": "failed", "reason": service.engine.fault}, 503)
        model = service.engine.condition
        if model.state == "restarting":
            return JSONResponse({"status": "restarting", "reason": model.reason, "restarts": model.restarts})
        return JSONResponse({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        """200 while new requests are taken, 503 while the server drains or after the engine died."""
        if service.engine.draining:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    app.include_router(page_router())
    (edge or Edge()).install(app, service.metrics, max_body_bytes, service.recent)
    return app
