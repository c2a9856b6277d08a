"""The model process: a runner, the engine's core, and nothing else. No HTTP, no text, no guard, hence no wait for them.

Started as ``python -m fulmen_serving.engine.model_worker FD PARENT`` by `Worker`, with one end of a socket pair as FD.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from fulmen_serving.engine.core import EngineCore
from fulmen_serving.engine.model_loop import run_model
from fulmen_serving.engine.parent_death import die_with
from fulmen_serving.engine.report import Command
from fulmen_serving.engine.wire import Fault, LoadFailed, Ready, Setup, decode, encode, encode_report, portable

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


def main(argv: Sequence[str]) -> int:
    """Load what the first message says, and run it until the engine says stop or is gone."""
    descriptor, parent = map(int, argv)
    die_with(parent)
    # Ctrl-C reaches every process of a terminal, and a service manager's SIGTERM all of a service. The parent drains.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone: nobody waits
        return _serve(connection)
    return 0


def _serve(connection: Connection) -> int:
    setup: Setup = decode(connection.recv_bytes())
    _start_logging(setup.log_level)
    begun = time.perf_counter()
    try:
        backend, runner = setup.plan.load(setup.plan.plugins.repeat())
        core = EngineCore(runner)
    except Exception as error:
        logger.debug("the model cannot be loaded", exc_info=True)
        connection.send_bytes(encode(LoadFailed(portable(error))))
        return 2
    connection.send_bytes(encode(Ready(backend, runner.limits, time.perf_counter() - begun)))
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
        core.runner.close()
    return 0


def _start_logging(level: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fulmen: %(message)s"))
    handler.addFilter(lambda record: record.name.startswith("fulmen") or record.levelno >= logging.WARNING)
    logging.basicConfig(level=level, handlers=[handler])


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # nothing is left to save, and a large library takes long to take itself down
