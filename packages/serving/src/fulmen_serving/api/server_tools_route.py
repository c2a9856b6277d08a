"""``GET /v1/server_tools``: the tools that this server runs for its model, where a request allows them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from fulmen_serving.tools.toolbox import Toolbox


def server_tools_router(toolbox: Toolbox) -> APIRouter:
    """Make the route over `toolbox`."""
    router = APIRouter()

    @router.get("/v1/server_tools")
    async def list_server_tools() -> dict[str, Any]:
        """Name, description and parameters of every tool; none unless the operator named some."""
        return {"object": "list", "data": [tool.definition["function"] for tool in toolbox.tools.values()]}

    return router
