"""``/healthz`` and ``/readyz``: whether to restart this process, and whether to send it requests."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from fulmen_serving.service import ChatService


def health_router(service: ChatService) -> APIRouter:
    """Make the routes over `service`."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Response:
        """200 while the server lives, also while it starts its model again; 503 with the reason once its engine died.

        That it answers shows that the event loop runs; the threads of the engine are asked.
        """
        if not service.engine.alive:
            return JSONResponse({"status": "failed", "reason": service.engine.fault or "the engine has ended"}, 503)
        model = service.engine.condition
        if model.state == "restarting":
            return JSONResponse({"status": "restarting", "reason": model.reason, "restarts": model.restarts})
        return JSONResponse({"status": "ok"})

    @router.get("/readyz")
    async def readyz() -> Response:
        """200 while new requests are taken, 503 while the server drains or after the engine died."""
        if service.engine.draining:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ready"})

    return router
