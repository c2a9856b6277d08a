"""Runs the tools' calls so that no tool can hurt the server: whatever goes wrong becomes a result that says so.

Each call has a thread of its own. Python cannot stop a thread, so a late one is abandoned: its result is thrown away.
While too many calls of a tool are abandoned and still running, it is not called again. A tool that never gives the
interpreter's lock back cannot be timed out from within the process; one that might belongs behind a process or server
of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fulmen_core.tool import ToolContext, ToolError, ToolResult
from fulmen_serving.tools.server_tool import ServerTool

logger = logging.getLogger(__name__)

#: Late calls of one tool that may still be running before further ones are refused.
MOST_ABANDONED = 4

_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What came of a call.

    Attributes:
        ok: whether the tool gave a result; if not, `parts` is one sentence that says why.
        parts: texts that stand alone.
        seconds: how long it took.
    """

    ok: bool
    parts: tuple[str, ...]
    seconds: float = 0.0


class ToolRunner:
    """Runs calls of the given tools. Safe to use from several event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned: dict[str, int] = {}

    async def run(self, tool: ServerTool, arguments_json: str, request_id: str, most_seconds: float) -> ToolOutcome:
        """Call `tool` and wait for what comes of it, never longer than its deadline or `most_seconds`.

        Args:
            tool: which.
            arguments_json: the arguments as the model wrote them.
            request_id: whose answer calls it.
            most_seconds: what is left of the request's time for tools.
        """
        begun = time.monotonic()
        try:
            arguments = json.loads(arguments_json)
        except (ValueError, RecursionError) as error:
            return _error(f"the arguments are not JSON ({error})")
        if not isinstance(arguments, dict):
            return _error("the arguments are no JSON object")
        if fault := tool.fault_of(arguments):
            return _error(fault)
        with self._lock:
            if self._abandoned.get(tool.name, 0) >= MOST_ABANDONED:
                return _error(f"the tool {tool.name} is busy; do without it")
        seconds = min(tool.deadline_seconds, most_seconds)
        if seconds <= 0:
            return _error("there is no time left for tools")
        context = ToolContext(request_id, begun + seconds)
        outcome = await self._wait(tool, arguments, context, seconds)
        return ToolOutcome(outcome.ok, outcome.parts, time.monotonic() - begun)

    async def _wait(
        self, tool: ServerTool, arguments: Mapping[str, Any], context: ToolContext, seconds: float
    ) -> ToolOutcome:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[ToolOutcome] = loop.create_future()
        ended = threading.Event()

        def settle(outcome: ToolOutcome) -> None:
            if not result.done():
                result.set_result(outcome)

        def work() -> None:
            outcome = _called(tool, arguments, context)
            with self._lock:
                ended.set()
                if context.cancelled.is_set():
                    self._abandoned[tool.name] -= 1
                    return
            try:
                loop.call_soon_threadsafe(settle, outcome)
            except RuntimeError:  # the loop is closed: the server stopped
                logger.debug("the tool %s ended after the server", tool.name)

        threading.Thread(target=work, name=f"fulmen-tool-{tool.name}", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                return await result
        except TimeoutError:
            logger.warning("the tool %s gave no result within %.3g s (%s)", tool.name, seconds, context.request_id)
            return _error(f"the tool {tool.name} gave no result within {seconds:.3g} s")
        finally:
            with self._lock:
                if not ended.is_set():
                    context.cancelled.set()
                    self._abandoned[tool.name] = self._abandoned.get(tool.name, 0) + 1


def _called(tool: ServerTool, arguments: Mapping[str, Any], context: ToolContext) -> ToolOutcome:
    """What the tool gives, checked; on the call's thread."""
    call: Callable[..., object] = tool.call  # a plugin may not keep the contract
    try:
        result = call(arguments, context)
    except ToolError as error:
        return _error(" ".join(str(error).split()) or "the tool failed")
    except BaseException:  # SystemExit too: a tool must not end more than its own call
        logger.exception("the tool %s failed (%s)", tool.name, context.request_id)
        return _error(f"the tool {tool.name} failed")
    if not isinstance(result, ToolResult):
        logger.error("the tool %s returned %s, not a ToolResult", tool.name, type(result).__name__)
        return _error(f"the tool {tool.name} failed")
    characters = sum(map(len, result.parts))
    if characters > tool.max_result_characters:
        most = tool.max_result_characters
        return _error(f"the result has {characters} characters, more than the {most} allowed; ask for less")
    return ToolOutcome(True, tuple(part.encode("utf-8", "replace").decode() for part in result.parts))


def _error(reason: str) -> ToolOutcome:
    return ToolOutcome(False, (f"Error: {reason[:_ERROR_CHARACTERS]}",))
