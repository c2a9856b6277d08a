"""The model process: a runner, the engine's core, and nothing else. No HTTP, no text, no guard, hence no wait for them.

Started by `Worker`, with one channel.
"""

from __future__ import annotations

import gc
import logging
import select
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from fulmen_serving.engine.model_loop import run_model
from fulmen_serving.engine.report import Command
from fulmen_serving.engine.wire import Fault, LoadFailed, Ready, Setup, decode, encode, encode_report
from fulmen_serving.processes.portable_error import portable
from fulmen_serving.processes.settling import run_child, start_logging

logger = logging.getLogger(__name__)


class PipeMailbox:
    """Commands from the other end of `connection`. To look whether there are any costs a microsecond."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection.fileno(), select.POLLIN)

    def take(self, *, wait: bool) -> list[Command] | None:
        """Return what arrived. None: the engine wants this process to end, or is gone."""
        commands: list[Command] = []
        while self._poll.poll(None if wait and not commands else 0):
            try:
                command = decode(self._connection.recv_bytes())
            except (EOFError, OSError):
                return None
            if command is None:
                return None
            commands.append(command)
        return commands


def serve(channels: Sequence[Connection]) -> int:
    """Load what the first message says, and run it until the engine says stop or is gone."""
    [connection] = channels
    setup: Setup = decode(connection.recv_bytes())
    start_logging(setup.log_level)
    begun = time.perf_counter()
    try:
        backend, core = setup.plan.open(setup.plan.plugins.repeat())
        seconds = time.perf_counter() - begun
        ready = Ready(backend.name, core.runner.limits, backend.capabilities().embed, seconds)
    except Exception as error:
        logger.debug("the model cannot be loaded", exc_info=True)
        connection.send_bytes(encode(LoadFailed(portable(error))))
        return 2
    connection.send_bytes(encode(ready))
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection walks it again in the middle of a step
    try:
        run_model(core, PipeMailbox(connection), lambda report: connection.send_bytes(encode_report(report)))
    except OSError:
        raise
    except Exception as error:
        logger.exception("the model process met a defect")
        connection.send_bytes(encode(Fault(f"{type(error).__name__}: {error}")))
        return 1
    finally:
        core.close()
    return 0


if __name__ == "__main__":
    run_child(serve, sys.argv[1:])
