"""The admin key at the door of the admin routes."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastapi import Request

from fulmen_serving.api.key_gate import bearer
from fulmen_serving.platform.api_key import secret_hash
from fulmen_serving.refusal import Refusal

if TYPE_CHECKING:
    from fulmen_serving.platform.platform import Platform


def admin_gate(platform: Platform, admin_key: str) -> Callable[[Request], Awaitable[None]]:
    """Make a dependency that lets a request pass that carries `admin_key`, and refuses any other with 401 or 403."""
    expected = secret_hash(admin_key)

    async def admin_only(request: Request) -> None:
        given = bearer(request.headers)
        if hmac.compare_digest(secret_hash(given), expected):
            return
        await platform.authenticate(given)  # 401 unless it is a key at all
        raise Refusal(403, "This API key may not administer the server", code="insufficient_permissions")

    return admin_only
