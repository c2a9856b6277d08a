"""One model process as its parent sees it: started, spoken to, heard, ended."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection

from fulmen_serving.engine.model_plan import ModelPlan
from fulmen_serving.engine.report import Command
from fulmen_serving.engine.wire import Message, Setup, decode, encode

_GRACE = 0.5  # seconds from the end of its messages to that of the process, before it is made to end


class Worker:
    """A process that was started to load `plan`. Messages are sent by a thread of its own: no caller waits for it.

    Its life depends on the thread that makes it (`parent_death`).
    """

    def __init__(self, plan: ModelPlan) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "fulmen_serving.engine.model_worker", str(theirs.fileno())]
        begun = time.monotonic()
        # Until it ignores them, signals to all processes of a terminal must not end it.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            self.process = subprocess.Popen(
                [*command, str(os.getpid())], stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        self.begun = begun
        self._connection = Connection(ours.detach())
        self._poll = select.poll()
        self._poll.register(self._connection.fileno(), select.POLLIN)
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, name="fulmen-model-commands", daemon=True)
        self._sender.start()
        self._outbox.put(encode(Setup(plan, logging.getLogger().getEffectiveLevel())))

    def send(self, command: Command) -> None:
        """Send a command; one that cannot arrive is dropped, and `receive` says why."""
        self._outbox.put(encode(command))

    def receive(self, seconds: float | None) -> Message | None:
        """Return the next message, or None if there is none within `seconds`.

        Raises:
            EOFError: the process is gone, and every message that it sent has been returned.
        """
        if not self._poll.poll(None if seconds is None else 1000 * seconds):
            return None
        try:
            message: Message = decode(self._connection.recv_bytes())
        except OSError:
            raise EOFError from None
        return message

    def kill(self) -> None:
        """End it at once. What it had sent can still be received."""
        self.process.kill()

    def stop(self) -> None:
        """Tell it to end when its step is done."""
        self._outbox.put(encode(None))

    def release(self) -> str:
        """Take back what belongs to the process, killing it if need be; return how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE)
        self.process.kill()
        code = self.process.wait()
        self._outbox.put(None)
        self._sender.join()
        self._connection.close()
        if code >= 0:
            return f"it ended with exit code {code}"
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        return f"it was killed by {name}"

    def _send_all(self) -> None:
        while (data := self._outbox.get()) is not None:
            try:
                self._connection.send_bytes(data)
            except OSError:
                return  # it is gone
