"""What TensorRT says while it works, kept so that an error can repeat it."""

from __future__ import annotations

from typing import Any


def make_log(trt: Any) -> Any:
    """A logger for the bindings `trt`, with `faults()`: what went wrong, as one line."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps errors, forgets the rest."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.messages.append(" ".join(message.split()))

        def faults(self) -> str:
            return "; ".join(dict.fromkeys(self.messages)) or "it gave no reason"

    return Log()
