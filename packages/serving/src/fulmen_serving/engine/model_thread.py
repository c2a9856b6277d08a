"""A model on a thread of this process: for the terminal, for tests, for whoever embeds the engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from fulmen_serving.engine.core import EngineCore
from fulmen_serving.engine.model_loop import run_model
from fulmen_serving.engine.report import Abort, Command, Condition, StepReport
from fulmen_serving.engine.sequence import GenerationRequest

logger = logging.getLogger(__name__)


class ModelThread:
    """A `ModelHost`.

    Args:
        core: over a loaded model, which the host closes.
    """

    def __init__(self, core: EngineCore) -> None:
        self.core, self.limits = core, core.runner.limits
        self._condition = Condition()
        self._wake = threading.Condition()
        self._commands: list[Command] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="fulmen-model", daemon=True)
        self._deliver: Callable[[StepReport], None]
        self._stopped: Callable[[str], None]

    @property
    def condition(self) -> Condition:
        """How it stands now: a thread that died is not started again, as nobody knows what it left behind."""
        return self._condition

    def start(self, deliver: Callable[[StepReport], None], stopped: Callable[[str], None]) -> None:
        """Run from now on. Once."""
        self._deliver, self._stopped = deliver, stopped
        self._thread.start()

    def add(self, request: GenerationRequest) -> None:
        """Queue a request."""
        self._put(request)

    def abort(self, request_id: str, *, forget: bool = False) -> None:
        """End a request before the next step."""
        self._put(Abort(request_id, forget))

    def take(self, *, wait: bool) -> list[Command] | None:
        """The loop's mailbox."""
        with self._wake:
            while wait and not (self._commands or self._closing):
                self._wake.wait()
            commands, self._commands = self._commands, []
            return None if self._closing else commands

    def close(self) -> None:
        """Stop and close the runner. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()
        self.core.close()

    def _put(self, command: Command) -> None:
        with self._wake:
            self._commands.append(command)
            self._wake.notify()

    def _run(self) -> None:
        fault = ""
        try:
            run_model(self.core, self, self._deliver)
        except Exception as error:  # a defect of the engine itself: say so on /healthz, answer what waits
            logger.exception("the model thread died")
            fault = f"the engine failed: {type(error).__name__}: {error}"
        self._condition = Condition("stopped", fault)
        self._stopped(fault)
