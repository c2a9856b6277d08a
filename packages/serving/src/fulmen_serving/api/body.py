"""Reading a request body: bounded before it is parsed, then strict JSON in UTF-8."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from fastapi import Request
from pydantic_core import from_json

from fulmen_serving.refusal import Refusal

#: A body that is too large is read and thrown away up to here: a client still sending would see a broken pipe instead.
_DISCARD_BYTES = 64 << 20
_DISCARD_SECONDS = 5.0
_READ_SECONDS = 30.0


async def read_json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    """Read and parse the body.

    Raises:
        Refusal: 413 if it is larger than `max_bytes`, 408 if it comes too slowly, 400 if it is no JSON object in UTF-8.
    """
    body = await read_body(request, max_bytes)
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(
            400,
            f"The request body is not valid UTF-8: byte 0x{body[error.start]:02x} at {error.start}",
            code="invalid_utf8",
        ) from None
    try:
        value = from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(400, f"The request body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Refusal(400, "The request body is JSON but not an object", code="invalid_json")
    return value


async def read_body(request: Request, max_bytes: int) -> bytearray:
    """Read the body as it is.

    Raises:
        Refusal: 413 if it is larger than `max_bytes`, 408 if it comes too slowly.
    """
    too_large = Refusal(413, f"The request body is larger than {max_bytes} bytes", code="request_too_large")
    declared = request.headers.get("content-length", "")
    body = bytearray()
    chunks = request.stream()
    try:
        async with asyncio.timeout(_READ_SECONDS):
            if not declared.isdigit() or int(declared) <= max_bytes:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > max_bytes:
                        break
                else:
                    return body
    except TimeoutError:
        raise Refusal(
            408, f"The request body did not arrive in {_READ_SECONDS:.0f} s", code="request_timeout"
        ) from None
    body.clear()
    if "expect" not in request.headers:  # a client that asked first has sent nothing yet
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                discarded = 0
                async for chunk in chunks:
                    discarded += len(chunk)
                    if discarded > _DISCARD_BYTES:
                        break
    raise too_large
