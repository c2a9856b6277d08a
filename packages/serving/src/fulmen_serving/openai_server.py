"""An OpenAI-compatible server somewhere: how it is reached, and which model it serves."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx

from fulmen_core.errors import UserError


def connect(url: str, *, api_key: str = "", timeout: httpx.Timeout, direct: bool = False) -> httpx.AsyncClient:
    """A client whose paths are relative to the server's root, with `api_key` as its bearer token if there is one.

    Args:
        url: e.g. ``"http://127.0.0.1:8000"``, with or without ``/v1``.
        api_key: empty sends none.
        timeout: of each request.
        direct: past the proxies that the environment names.

    Raises:
        UserError: `url` is none, or the key cannot be a header.
    """
    root = url.rstrip("/").removesuffix("/v1")
    if not api_key.isascii() or not api_key.isprintable():
        raise UserError("the API key has characters that no key has", remedy="copy it again")
    try:
        return httpx.AsyncClient(
            base_url=f"{root}/",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            trust_env=not direct,
        )
    except httpx.InvalidURL as error:
        raise UserError(f"{url!r} is no URL ({error})", remedy="give one like http://127.0.0.1:8000") from None


async def event_lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    """The lines of a stream of events. Not httpx's: that also ends lines at characters that may stand within a text."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode()
    if rest:
        yield rest.decode()


async def first_model(client: httpx.AsyncClient) -> str:
    """The name of the server's first model.

    Raises:
        UserError: nobody answers, or not as an OpenAI-compatible server does.
    """
    place = str(client.base_url).rstrip("/")
    try:
        response = await client.get("v1/models")
        response.raise_for_status()
        return str(response.json()["data"][0]["id"])
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        remedy = "give its API key, --api-key or FULMEN_API_KEY" if status in (401, 403) else "check the URL"
        raise UserError(f"{place} answers {status} to GET /v1/models", remedy=remedy) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"no server answers at {place} ({error})", remedy="start one with `fulmen serve`, or check the URL"
        ) from None
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{place} is no OpenAI-compatible server", remedy="check the URL") from None
