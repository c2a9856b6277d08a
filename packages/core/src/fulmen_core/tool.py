"""The contract of a tool: what the server asks of it when a model calls it.

A tool is a callable ``tool(arguments, context) -> ToolResult``. What it returns is untrusted: the server judges it as
input (RAISE-3) before the model sees it, and nobody executes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool is told about the call beside its arguments. It is not told the conversation.

    Attributes:
        request_id: of the request whose answer calls it, for logs.
        deadline: when the result must be there, on the clock of `time.monotonic`. A later one is thrown away.
        cancelled: set once nobody waits for the result any more.
    """

    request_id: str
    deadline: float
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def remaining_seconds(self) -> float:
        """Time until the deadline, never below 0; for the timeouts of what the tool itself waits for."""
        return max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool found.

    Attributes:
        parts: texts that stand alone, e.g. one for each passage found; the model gets them with an empty line between.
            A part that the guard blocks is left out, the others stay.
    """

    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple) or not all(isinstance(part, str) for part in self.parts):
            raise TypeError("ToolResult.parts must be a tuple of str, e.g. ToolResult(('42',))")


class ToolError(Exception):
    """Raised by a tool that cannot do what it was asked; its message is shown to the model, so that it may try again.

    Anything else that a tool raises is logged, and the model is told only that the tool failed.
    """


#: ``tool(arguments, context)``: the arguments fit the declared parameters; called from several threads at once.
Tool = Callable[[Mapping[str, Any], ToolContext], ToolResult]
