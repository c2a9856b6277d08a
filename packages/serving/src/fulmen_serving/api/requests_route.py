"""``GET /admin/v1/requests``: what the last requests cost and what the guard did to them, without their text."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from fulmen_serving.recent_requests import RecentRequests


def requests_router(recent: RecentRequests) -> APIRouter:
    """Make the route over `recent`."""
    router = APIRouter(prefix="/admin/v1")

    @router.get("/requests")
    async def list_requests() -> dict[str, Any]:
        """The records of the last requests, newest first, and how many are kept."""
        return {"object": "list", "data": recent.newest_first(), "keep": recent.keep}

    return router
