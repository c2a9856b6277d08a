"""One model process as its parent sees it: started, spoken to, heard, ended."""

from __future__ import annotations

import logging
import queue
import select
import threading
import time

from fulmen_serving.engine.model_plan import ModelPlan
from fulmen_serving.engine.report import Command
from fulmen_serving.engine.wire import Message, Setup, decode, encode
from fulmen_serving.processes.child import end_child, start_child


class Worker:
    """A process that was started to load `plan`. Messages are sent by a thread of its own: no caller waits for it.

    It dies with the thread that makes it (`start_child`).
    """

    def __init__(self, plan: ModelPlan) -> None:
        self.begun = time.monotonic()
        self.process, [self._connection] = start_child("fulmen_serving.engine.model_worker")
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
        """Take back what belongs to the process, killing it if need be; return how it ended, in words."""
        how = end_child(self.process)
        self._outbox.put(None)
        self._sender.join()
        self._connection.close()
        return how

    def _send_all(self) -> None:
        while (data := self._outbox.get()) is not None:
            try:
                self._connection.send_bytes(data)
            except OSError:
                return  # it is gone
