"""One replica: a whole Fulmen server without its socket. What it answers is what `fulmen serve` would."""

from __future__ import annotations

import asyncio
import contextlib
import time
from argparse import Namespace
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from ray import serve
from starlette.types import ASGIApp, Message

from fulmen_core.cli import context
from fulmen_serving.api.app import make_app
from fulmen_serving.cli.edge_options import open_edge
from fulmen_serving.loading import ServingOptions, load_service
from fulmen_serving_ray.exchange import HttpCall, ResponseHead
from fulmen_serving_ray.prefix_memory import Prefix

#: A piece of a body waits so long after the one before it: Ray's way costs milliseconds a piece, whatever its size.
_PIECE_SECONDS = 0.02


class FulmenReplica:
    """Serves HTTP calls that an ingress passes on.

    Args:
        options: which model, and how.
        arguments: of the command line, for keys, limits and traces; the environment is that of the node.
    """

    def __init__(self, options: ServingOptions, arguments: Namespace) -> None:
        self.name = str(serve.get_replica_context().replica_id.unique_id)
        with contextlib.ExitStack() as stack:
            edge = stack.enter_context(open_edge(arguments, options.served_name))
            self._service = load_service(options, context.registry())
            stack.callback(self._service.close)
            self._app: ASGIApp = make_app(
                self._service, version=version("fulmen-serving"), max_body_bytes=arguments.max_body_bytes, edge=edge
            )
            self._open = stack.pop_all()

    async def call(self, prefix: Prefix, call: HttpCall) -> AsyncIterator[ResponseHead | bytes]:  # noqa: ARG002
        """Yield the head of the response, then its body in pieces. `prefix` is there for the router alone."""
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        received = False

        async def receive() -> Message:
            nonlocal received
            if received:
                await asyncio.Event().wait()  # whoever leaves cancels the call
            received = True
            return {"type": "http.request", "body": call.body, "more_body": False}

        async def respond() -> None:
            await self._app(_scope(call), receive, messages.put)

        serving = asyncio.create_task(respond())
        serving.add_done_callback(lambda _: messages.put_nowait(None))
        try:
            begun = 0.0
            while (message := await messages.get()) is not None:
                if message["type"] == "http.response.start":
                    yield ResponseHead(message["status"], list(message["headers"]), self.name)
                    continue
                if (early := begun + _PIECE_SECONDS - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                piece = bytearray(message.get("body", b""))
                ended = False
                while not ended and not messages.empty():  # what has come meanwhile travels along
                    ended = (more := messages.get_nowait()) is None
                    piece += b"" if more is None else more.get("body", b"")
                begun = time.monotonic()
                if piece:
                    yield bytes(piece)
                if ended:
                    break
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving

    def metrics(self) -> tuple[str, bytes]:
        """Return the replica's name and its metrics as Prometheus text."""
        return self.name, self._service.metrics.render()

    def check_health(self) -> None:
        """Ray asks this regularly, and replaces a replica that raises."""
        if not self._service.engine.alive:
            raise RuntimeError(self._service.engine.fault or "the engine has ended")

    def __del__(self) -> None:
        """Ray lets a replica go when its calls have ended: what was metered is written."""
        if opened := getattr(self, "_open", None):
            opened.close()


def _scope(call: HttpCall) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "query_string": call.query,
        "root_path": "",
        "headers": call.headers,
        "client": call.client,
        "server": None,
        "state": {},
    }
