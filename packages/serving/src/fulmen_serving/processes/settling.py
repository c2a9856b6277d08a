"""What a child process does first: it ties its life to its parent's, leaves signals to the parent, and can log."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from fulmen_serving.processes.parent_death import die_with


def run_child(serve: Callable[[Sequence[Connection]], int], argv: Sequence[str]) -> None:
    """Run `serve` over the channels of a process started by `start_child`, then end the process with what it returns.

    Errors of a channel mean that the parent is gone: nobody waits for an answer, and the process ends.
    """
    parent, *channels = map(int, argv)
    die_with(parent)
    # Ctrl-C reaches every process of a terminal, and a service manager's SIGTERM all of a service. The parent drains.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        code = serve([Connection(channel) for channel in channels])
    except (EOFError, BrokenPipeError, ConnectionResetError):
        code = 0
    sys.stderr.flush()
    os._exit(code)  # nothing is left to save, and a large library takes long to take itself down


def start_logging(level: int) -> None:
    """Log as the command line does: what Fulmen's members say, and of other libraries warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fulmen: %(message)s"))
    handler.addFilter(lambda record: record.name.startswith("fulmen") or record.levelno >= logging.WARNING)
    logging.basicConfig(level=level, handlers=[handler])
