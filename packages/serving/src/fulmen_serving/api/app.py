"""The application: the page, the routes of every protocol, health, readiness, metrics."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from fulmen_serving.api.chat_route import chat_router
from fulmen_serving.api.completion_route import completion_router
from fulmen_serving.api.edge import Edge
from fulmen_serving.api.embedding_route import embedding_router
from fulmen_serving.api.errors import install_error_handlers
from fulmen_serving.api.explain_route import explain_router
from fulmen_serving.api.health_route import health_router
from fulmen_serving.api.messages_route import messages_router
from fulmen_serving.api.models_route import models_router
from fulmen_serving.api.moderation_route import moderation_router
from fulmen_serving.api.openapi import publish
from fulmen_serving.api.page_route import page_router
from fulmen_serving.api.requests_route import requests_router
from fulmen_serving.api.responses_route import responses_router
from fulmen_serving.api.server_tools_route import server_tools_router
from fulmen_serving.api.tokenize_route import tokenize_router
from fulmen_serving.service import ChatService
from fulmen_serving.tools.toolbox import Toolbox

#: Larger than any prompt that a context of 100,000 tokens could hold in UTF-8.
MAX_BODY_BYTES = 2 << 20
#: FastAPI would trace and log on its own, texts included, where the environment asks for it; older ones would not.
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def make_app(
    service: ChatService,
    *,
    version: str = "",
    max_body_bytes: int = MAX_BODY_BYTES,
    edge: Edge | None = None,
    toolbox: Toolbox | None = None,
) -> FastAPI:
    """Make the HTTP application over a started service. Whoever made the service closes it."""
    toolbox = toolbox or Toolbox()
    # no /docs: its page would load scripts from a third party
    app = FastAPI(title="Fulmen", version=version or "0", docs_url=None, redoc_url=None, telemetry=_NO_TELEMETRY)
    install_error_handlers(app, service.metrics)
    app.include_router(chat_router(service, max_body_bytes, toolbox))
    app.include_router(server_tools_router(toolbox))
    app.include_router(completion_router(service, max_body_bytes))
    app.include_router(messages_router(service, max_body_bytes))
    app.include_router(responses_router(service, max_body_bytes))
    app.include_router(embedding_router(service, max_body_bytes))
    app.include_router(moderation_router(service, max_body_bytes))
    app.include_router(models_router(service))
    app.include_router(tokenize_router(service, max_body_bytes))
    app.include_router(health_router(service))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    edge = edge or Edge()
    app.include_router(page_router())
    telling = (requests_router(service.recent), explain_router(service, max_body_bytes))
    edge.install(app, service.metrics, max_body_bytes, telling)
    publish(app, keyed=edge.platform is not None, timed=edge.request_seconds is not None)
    return app
