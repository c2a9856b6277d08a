"""A model in a process of its own, which is started again when it dies, and goes on with the requests that it had.

A supervisor thread starts the process, hears it, notices its end or that it hangs, and starts the next one. Requests
are kept in a `Ledger` with every token that arrived, so their answers go on where they were: the sampler of a request
stands where its tokens say, whichever process draws.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from fulmen_core.errors import UserError
from fulmen_core.runner import EngineLimits
from fulmen_serving.engine.ledger import Ledger
from fulmen_serving.engine.model_plan import ModelPlan
from fulmen_serving.engine.report import Abort, Condition, StepReport
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.engine.wire import Fault, LoadFailed, Ready
from fulmen_serving.engine.worker import Worker
from fulmen_serving.processes.restart_policy import RestartPolicy

logger = logging.getLogger(__name__)

#: Seconds of a step after which the process counts as hung.
STEP_PATIENCE = 120.0
_STOP_PATIENCE = 5.0  # seconds from being told to end to being killed
_LOOK = 0.5  # seconds between two looks at the clock while nothing is heard


class ModelProcess:
    """A `ModelHost`. The process starts at once; `wait_ready` waits for it.

    Args:
        plan: what to load.
        policy: when to start it again; fresh.
        step_patience: seconds without a word from a process that has requests, after which it is killed.
    """

    limits: EngineLimits

    def __init__(
        self, plan: ModelPlan, *, policy: RestartPolicy | None = None, step_patience: float = STEP_PATIENCE
    ) -> None:
        self._plan, self._policy, self._patience = plan, policy or RestartPolicy(), step_patience
        self._lock = threading.Lock()
        self._ledger = Ledger()
        self._worker: Worker | None = None  # once it is ready
        self._condition = Condition("starting")
        self._ready = False  # whether the worker has loaded its model
        self._heard = time.monotonic()  # when the worker last spoke, or got something to do after nothing
        self._closing = threading.Event()
        self._first: Future[Ready] = Future()
        self._deliver: Callable[[StepReport], None] = lambda _: None
        self._stopped: Callable[[str], None] = lambda _: None
        self._supervisor = threading.Thread(target=self._supervise, name="fulmen-model", daemon=True)
        self._supervisor.start()

    def wait_ready(self) -> Ready:
        """Wait until the model is loaded.

        Raises:
            UserError: whatever is at fault with the model, the backend or the choices; or the process died.
        """
        ready = self._first.result()
        self.limits = ready.limits
        return ready

    @property
    def condition(self) -> Condition:
        """How the process stands now."""
        return self._condition

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one now."""
        worker = self._worker
        return None if worker is None else worker.process.pid

    def start(self, deliver: Callable[[StepReport], None], stopped: Callable[[str], None]) -> None:
        """Report from now on. Once, after `wait_ready`."""
        with self._lock:
            self._deliver, self._stopped = deliver, stopped
            condition = self._condition
        if condition.state == "stopped":
            stopped(condition.reason)

    def add(self, request: GenerationRequest) -> None:
        """Queue a request; while there is no process, for the next one."""
        with self._lock:
            self._ledger.add(request)
            self._send()

    def abort(self, request_id: str, *, forget: bool = False) -> None:
        """End a request before the process's next step."""
        with self._lock:
            ended = self._ledger.abort(request_id)
            if ended is None and self._worker is not None and self._ready:
                self._worker.send(Abort(request_id, forget))
        if ended is not None:
            self._deliver(StepReport(ended=[ended]))

    def close(self) -> None:
        """End the process after its step, and the supervisor. Idempotent."""
        with self._lock:
            self._closing.set()
            self._heard = time.monotonic()
            if self._worker is not None:
                if self._ready:
                    self._worker.stop()
                else:
                    self._worker.kill()
        self._supervisor.join()

    def _send(self) -> None:
        """Give the worker what it should have. Holding the lock."""
        if self._worker is None or not self._ready:
            return
        if not self._ledger.in_process:
            self._heard = time.monotonic()
        for request in self._ledger.send():
            self._worker.send(request)

    # -- the supervisor ------------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        try:
            fault = self._keep_running()
        except Exception as error:
            logger.exception("the model process is no longer supervised")
            fault = f"the engine failed: {type(error).__name__}: {error}"
        if not self._first.done():
            self._first.set_exception(UserError(fault or "the model was closed while it loaded"))
        with self._lock:
            self._condition = replace(self._condition, state="stopped", reason=fault)
            stopped = self._stopped
        stopped(fault)

    def _keep_running(self) -> str:
        """Start workers until the host is closed, or too many died: return why, or ""."""
        while True:
            with self._lock:
                if self._closing.is_set():
                    return ""
                worker = self._worker = Worker(self._plan)
            try:
                said = self._hear(worker)
            finally:
                with self._lock:
                    self._worker, self._ready = None, False
                how = worker.release()
            if self._closing.is_set():
                return ""
            reason = said or how
            if not self._first.done():
                self._first.set_exception(self._load_error(reason))
            if self._first.exception() is not None:  # it was never ready, and whoever waited for it has been told why
                return reason
            wait = self._policy.crashed()
            with self._lock:
                report = self._ledger.crashed(reason)
                self._condition = Condition("restarting", reason, self._condition.restarts + 1)
            self._deliver(report)
            if wait is None:
                return (
                    f"the model process died {self._policy.crashes} times within {self._policy.window:.0f} s: {reason}"
                )
            again = f"starting it again in {wait:g} s" if wait else "starting it again"
            logger.error("the model process died: %s; %d requests wait; %s", reason, len(report.requeued), again)
            if self._closing.wait(wait):
                return ""

    def _hear(self, worker: Worker) -> str:
        """Take the worker's messages until it is gone; return why it ended, if that is known."""
        reason = ""
        while True:
            try:
                message = worker.receive(_LOOK)
            except EOFError:
                return reason
            if message is None:
                if overdue := self._overdue():
                    reason = overdue
                    worker.kill()
            elif isinstance(message, StepReport):
                with self._lock:
                    self._heard = time.monotonic()
                    self._ledger.take(message)
                    self._send()
                self._deliver(message)
            elif isinstance(message, Ready):
                self._took_over(worker, message)
            elif isinstance(message, LoadFailed):
                reason = str(message.error)
                if not self._first.done():
                    self._first.set_exception(message.error)
            elif isinstance(message, Fault):
                reason = message.message

    def _took_over(self, worker: Worker, ready: Ready) -> None:
        seconds = time.monotonic() - worker.begun
        logger.info(
            "model process %d ready after %.1f s, %.1f of them for the model",
            worker.process.pid,
            seconds,
            ready.seconds,
        )
        with self._lock:
            self._ready = True
            self._heard = time.monotonic()
            self._condition = Condition("running", "", self._condition.restarts)
            self._send()
        if not self._first.done():
            self._first.set_result(ready)

    def _overdue(self) -> str:
        """Why the worker should be killed for its silence, or ""."""
        with self._lock:
            silence = time.monotonic() - self._heard
            if self._closing.is_set():
                return "it did not stop" if silence > _STOP_PATIENCE else ""
            if self._ready and self._ledger.in_process and silence > self._patience:
                return f"its step took longer than {self._patience:g} s"
        return ""

    def _load_error(self, reason: str) -> UserError:
        return UserError(
            f"the model process died while it loaded the model: {reason}",
            where=str(self._plan.model),
            remedy="if the system killed it, the model needs more memory than there is",
        )
