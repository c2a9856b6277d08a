"""What a client is told of the tools that the server runs, as events beside the text of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

#: ``ok``: the model read the result, perhaps with parts rewritten or left out; ``error``: it read why there is none;
#: ``withheld``: the guard let it read nothing of it.
ToolStatus = Literal["running", "ok", "error", "withheld"]


@dataclass(frozen=True, slots=True)
class ToolActivity:
    """A call began, or it ended.

    Attributes:
        call_id: the same at both ends.
        name: of the tool.
        arguments: JSON, as the model wrote it.
        status: "running" at the beginning.
        content: at the end, what the model reads, as far as the output guard lets the client see it.
        seconds: at the end, how long it took.
    """

    call_id: str
    name: str
    arguments: str
    status: ToolStatus = "running"
    content: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The event as it stands in ``server_tools`` of an answer."""
        body: dict[str, Any] = {
            "id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
            "status": self.status,
        }
        if self.status != "running":
            body |= {"content": self.content, "seconds": round(self.seconds, 3)}
        return body
