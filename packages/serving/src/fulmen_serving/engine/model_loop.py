"""The loop that owns a model: take commands, run a step, report. The same in a thread and in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from fulmen_serving.engine.core import EngineCore, StepOutcome
from fulmen_serving.engine.report import Abort, Command, Ended, StepReport
from fulmen_serving.engine.sequence import SequenceState


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
        if aborted := _apply(core, commands):
            report(StepReport(ended=aborted))
        if core.has_work:
            step = _report_of(core.step())
            now = time.perf_counter()
            step.cycle_seconds, mark = now - mark, now
            report(step)


def _apply(core: EngineCore, commands: list[Command]) -> list[Ended]:
    aborted = []
    for command in commands:
        if not isinstance(command, Abort):
            core.add(command)
        elif (state := core.abort(command.request_id)) is not None:
            aborted.append(_ended(state))
    return aborted


def _report_of(outcome: StepOutcome) -> StepReport:
    return StepReport(
        admitted=[state.request.request_id for state in outcome.admitted],
        events=outcome.events,
        ended=[_ended(state) for state in outcome.ended],
        computed_tokens=outcome.computed_tokens,
        model_seconds=outcome.model_seconds,
    )


def _ended(state: SequenceState) -> Ended:
    return Ended(
        state.request.request_id,
        min(state.computed, len(state.request.prompt_ids)),
        state.generated,
        None if state.slot_since is None else time.perf_counter() - state.slot_since,
    )
