"""The ingress: reads a request, finds the beginning of its prompt, and passes it to the replica that knows it best."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import from_json
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from fulmen_serving.api.body import read_body
from fulmen_serving.api.errors import error_object, refusal_response
from fulmen_serving.refusal import Refusal
from fulmen_serving_ray.exchange import HttpCall, ResponseHead
from fulmen_serving_ray.metrics_of_replicas import merge
from fulmen_serving_ray.prefix_memory import Prefix, prefix_of

logger = logging.getLogger(__name__)

#: Names the replica that answered, for whoever looks for a fault.
REPLICA_HEADER = "x-fulmen-replica"
#: A call whose replica died before it began to answer goes to another one, so often.
_TRIES = 3
_METRICS_SECONDS = 5.0


class FulmenIngress:
    """Passes every request on.

    Args:
        replicas: the handle of the replicas' deployment.
        max_body_bytes: of a request.
    """

    def __init__(self, replicas: DeploymentHandle, max_body_bytes: int) -> None:
        self._replicas, self._max_body_bytes = replicas, max_body_bytes
        self._calls = replicas.options(method_name="call", stream=True)

    async def __call__(self, request: Request) -> Response:
        """Answer a request; Ray's proxy calls this."""
        if request.url.path == "/metrics":
            told = await self._replicas.broadcast("metrics").results_async(timeout_s=_METRICS_SECONDS)
            return Response(merge(dict(told)), media_type="text/plain; version=0.0.4; charset=utf-8")
        try:
            body = bytes(await read_body(request, self._max_body_bytes))
            return await self._pass_on(_prefix(request, body), _call(request, body))
        except Refusal as refusal:
            return refusal_response(refusal)

    async def _pass_on(self, prefix: Prefix, call: HttpCall) -> Response:
        for tries_left in reversed(range(_TRIES)):
            answer = self._calls.remote(prefix, call)
            try:
                head = await anext(answer)
            except BackPressureError:
                raise Refusal(429, "All replicas are full", code="rate_limit_exceeded", retry_after=1) from None
            except RayError as error:
                if tries_left:
                    logger.warning("a replica failed before it answered, another is asked: %s", type(error).__name__)
                    continue
                raise _replica_failed(error) from None
            except BaseException:
                answer.cancel()
                raise
            streamed = StreamingResponse(_pieces(answer, head), head.status)
            streamed.raw_headers = [*head.headers, (REPLICA_HEADER.encode(), head.replica.encode())]
            return streamed
        raise AssertionError("unreachable")


async def _pieces(answer: Any, head: ResponseHead) -> AsyncIterator[bytes]:
    try:
        async for piece in answer:
            yield piece
    except RayError as error:
        if not any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in head.headers):
            raise  # the connection breaks off, as it must: a length was promised
        yield b"data: " + json.dumps(error_object(_replica_failed(error))).encode() + b"\n\n"
    finally:
        answer.cancel()  # the client may have left; of an answer that is over it does nothing


def _replica_failed(error: RayError) -> Refusal:
    logger.error("a replica failed: %s", type(error).__name__)
    return Refusal(503, "The replica that answered failed", code="service_unavailable", retry_after=1)


def _call(request: Request, body: bytes) -> HttpCall:
    client = None if request.client is None else (request.client.host, request.client.port)
    query = request.scope.get("query_string", b"")
    return HttpCall(request.method, request.url.path, query, list(request.headers.raw), body, client)


def _prefix(request: Request, body: bytes) -> Prefix:
    try:
        asked = from_json(body)
    except ValueError:
        return ()  # the replica refuses it, in words
    # caches are salted by the key, so what one key's prompts left behind is of no use to another's
    key = request.headers.get("authorization", "") + request.headers.get("x-api-key", "")
    return prefix_of(asked, hashlib.sha256(key.encode()).hexdigest()) if isinstance(asked, dict) else ()
