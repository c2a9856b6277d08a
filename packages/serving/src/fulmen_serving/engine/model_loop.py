"""The loop that owns a model: take commands, run a step, report. The same in a thread and in a process of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from fulmen_serving.engine.core import EngineCore, StepOutcome, TokenEvent
from fulmen_serving.engine.report import Abort, Admitted, CacheUse, Command, Ended, StepReport
from fulmen_serving.engine.sequence import SequenceState

logger = logging.getLogger(__name__)


class Mailbox(Protocol):
    """Where the loop's commands arrive."""

    def take(self, *, wait: bool) -> list[Command] | None:
        """Return the commands since the last call, in order, or None to stop. With `wait`, wait until there is one."""
        ...


def run_model(core: EngineCore, mailbox: Mailbox, report: Callable[[StepReport], None]) -> None:
    """Run steps until the mailbox says stop. Whoever called closes the runner.

    An abort is applied and reported before the next step begins, so that its slot is free within one step.
    """
    mark = time.perf_counter()  # up to here all time is accounted for
    while True:
        idle = not core.has_work
        commands = mailbox.take(wait=idle)
        if commands is None:
            return
        if idle:
            mark = time.perf_counter()
        applied = _apply(core, commands)
        if applied.ended:
            report(applied)
        if core.has_work:
            step = _report_of(core.step(), core)
            now = time.perf_counter()
            step.cycle_seconds, mark = now - mark, now
            report(step)


def _apply(core: EngineCore, commands: list[Command]) -> StepReport:
    report = StepReport()
    for command in commands:
        if isinstance(command, Abort):
            if (state := core.abort(command.request_id, forget=command.forget)) is not None:
                report.ended.append(_ended(state))
            continue
        try:
            core.add(command)
        except Exception as error:  # its grammar, say: one request's fault must not be another's
            logger.exception("request %s cannot be added", command.request_id)
            report.events.append(TokenEvent(command.request_id, None, "error", f"{type(error).__name__}: {error}"))
            report.ended.append(Ended(command.request_id, 0, len(command.generated)))
    return report


def _report_of(outcome: StepOutcome, core: EngineCore) -> StepReport:
    now, cache = time.perf_counter(), core.cache
    return StepReport(
        admitted=[
            Admitted(s.request.request_id, now - (s.slot_since or now), s.reused, tuple(s.decisions))
            for s in outcome.admitted
        ],
        requeued=[state.request.request_id for state in outcome.preempted],
        preempted=len(outcome.preempted),
        events=outcome.events,
        ended=[_ended(state) for state in outcome.ended],
        computed_tokens=outcome.computed_tokens,
        reused_tokens=outcome.reused_tokens,
        guessed_tokens=outcome.guessed_tokens,
        confirmed_tokens=outcome.confirmed_tokens,
        cache=CacheUse(
            cache.pages.size, cache.pages.size - cache.pages.free, len(cache.kept), cache.evicted, len(core.adapters)
        ),
        model_seconds=outcome.model_seconds,
    )


def _ended(state: SequenceState) -> Ended:
    return Ended(
        state.request.request_id,
        state.read,
        state.generated,
        None if state.slot_since is None else time.perf_counter() - state.slot_since,
    )
