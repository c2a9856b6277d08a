"""``/admin/v1``: keys, quotas and usage for whoever holds the admin key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fulmen_core.errors import UserError
from fulmen_core.recipes import invalid
from fulmen_serving.api.body import read_json_object
from fulmen_serving.platform.database import DatabaseFailed
from fulmen_serving.platform.key_store import DEFAULT_ORGANISATION, KeyLimits
from fulmen_serving.platform.moments import moment, moment_ago
from fulmen_serving.platform.platform import Platform
from fulmen_serving.platform.report import key_object, usage_report
from fulmen_serving.refusal import Refusal

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class NewKey(BaseModel):
    """The body of ``POST /admin/v1/keys``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    organisation: str = DEFAULT_ORGANISATION
    expires: str | None = Field(None, description="a time (ISO 8601, UTC unless it says otherwise) or a span: 90d, 12h")
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None


class Quota(BaseModel):
    """The body of ``PUT /admin/v1/organisations/{name}``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tokens_per_month: int | None


class UsageQuery(BaseModel):
    """The query of ``GET /admin/v1/usage``."""

    model_config = ConfigDict(extra="forbid")

    key: str | None = None
    organisation: str | None = None
    since: str | None = Field(None, description="a time, or a span that ends now")
    hourly: bool = False


class KeysQuery(BaseModel):
    """The query of ``GET /admin/v1/keys``."""

    model_config = ConfigDict(extra="forbid")

    organisation: str | None = None


def admin_router(platform: Platform, max_body_bytes: int) -> APIRouter:
    """Make the routes over `platform`. Whoever includes them puts the admin key before them."""
    router = APIRouter(prefix="/admin/v1")

    def body(model: type[BaseModel]) -> dict[str, Any]:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}

    def query(model: type[BaseModel]) -> dict[str, Any]:
        properties = model.model_json_schema()["properties"]
        return {"parameters": [{"name": name, "in": "query", "schema": one} for name, one in properties.items()]}

    @router.post("/keys", status_code=201, openapi_extra=body(NewKey))
    async def create_key(request: Request) -> dict[str, Any]:
        """Make a key. The answer holds its secret, which is never shown again."""
        asked = _parse(NewKey, await read_json_object(request, max_body_bytes))

        def create() -> dict[str, Any]:
            secret, key = platform.keys.create(
                asked.name,
                asked.organisation,
                expires=None if asked.expires is None else moment(asked.expires),
                limits=KeyLimits(asked.requests_per_minute, asked.tokens_per_minute, asked.max_concurrent),
            )
            return {"key": secret, **key_object(key)}

        return await _in_thread(create)

    @router.get("/keys", openapi_extra=query(KeysQuery))
    async def list_keys(request: Request) -> dict[str, Any]:
        """Every key, or those of one `organisation`, without their secrets."""
        asked = _parse(KeysQuery, request.query_params)
        found = await _in_thread(lambda: platform.keys.list(asked.organisation))
        return {"object": "list", "data": [key_object(key) for key in found]}

    @router.post("/keys/{named}/revoke")
    async def revoke_key(named: str) -> dict[str, Any]:
        """Revoke a key, named by its id or shown prefix, from now on."""
        revoked = await _in_thread(lambda: platform.keys.revoke(named))
        platform.forget()
        return key_object(revoked)

    @router.put("/organisations/{name}", openapi_extra=body(Quota))
    async def set_quota(request: Request, name: str) -> dict[str, Any]:
        """Set the quota of an organisation; null is none."""
        asked = _parse(Quota, await read_json_object(request, max_body_bytes))
        await _in_thread(lambda: platform.keys.set_quota(name, asked.tokens_per_month))
        platform.forget()
        return {"object": "organisation", "name": name, "tokens_per_month": asked.tokens_per_month}

    @router.get("/usage", openapi_extra=query(UsageQuery))
    async def usage(request: Request) -> dict[str, Any]:
        """Requests, tokens and cost by organisation, key and model."""
        asked = _parse(UsageQuery, request.query_params)

        def report() -> dict[str, Any]:
            platform.meter.flush()
            since = None if asked.since is None else moment_ago(asked.since)
            rows = platform.usage.report(
                key=asked.key, organisation=asked.organisation, since=since, hourly=asked.hourly
            )
            return usage_report(rows)

        return await _in_thread(report)

    return router


def _parse(model: type[M], given: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise Refusal(400, str(invalid(error, model, place="the request")), code="invalid_value") from None


async def _in_thread(work: Callable[[], T]) -> T:
    """Ask the database off the event loop; what the caller can mend is a 400."""
    try:
        return await asyncio.to_thread(work)
    except DatabaseFailed as error:
        raise Refusal(503, str(error), code="service_unavailable", retry_after=5) from None
    except UserError as error:
        raise Refusal(400, str(error), code="invalid_value") from None
