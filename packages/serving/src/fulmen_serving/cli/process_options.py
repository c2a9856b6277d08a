"""Where `fulmen serve` runs its model, in a process of its own unless told otherwise, and where and when its guard."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from fulmen_core.errors import UserError

if TYPE_CHECKING:
    from fulmen_core.registry import Registry
    from fulmen_serving.engine.model_process import ModelProcess
    from fulmen_serving.guarding.guard_process import GuardProcess
    from fulmen_serving.loading import ServingOptions

#: More would look like a server that stalls.
LONGEST_WAIT_MS = 1000


def add_process_options(parser: ArgumentParser) -> None:
    """Add ``--in-process``, ``--step-seconds``, ``--guard-process`` and ``--guard-wait-ms``."""
    parser.add_argument(
        "--in-process", action="store_true", help="run the model in the server's process; a crash then ends both"
    )
    parser.add_argument(
        "--step-seconds",
        type=float,
        metavar="N",
        default=120.0,
        help="a model process whose step takes longer hangs, and is started again (%(default)s)",
    )
    parser.add_argument(
        "--guard-process",
        action="store_true",
        help="run RAISE in a process of its own too: a detector that crashes or hangs ends one answer, not the server",
    )
    parser.add_argument(
        "--guard-wait-ms",
        type=float,
        metavar="N",
        default=50.0,
        help="how long text of an answer, neither its first nor its end, may wait for RAISE, which then reads several "
        "tokens at once and takes at most 3 %% of the time; 0: it reads after every step (%(default)g)",
    )


def with_process_options(options: ServingOptions, args: Namespace) -> ServingOptions:
    """Return the options with what the command line says of the guard.

    Raises:
        UserError: it is no time.
    """
    if not 0 <= args.guard_wait_ms <= LONGEST_WAIT_MS:
        what = f"--guard-wait-ms {args.guard_wait_ms:g} is not between 0 and {LONGEST_WAIT_MS}"
        raise UserError(what, remedy="0 has every token read by itself; nobody notices 50")
    return replace(options, guard_wait=args.guard_wait_ms / 1000)


def guard_process(args: Namespace, options: ServingOptions, registry: Registry) -> GuardProcess | None:
    """The guard's process, not started yet; None if the guard runs in this one, or there is none."""
    if not (args.guard_process and options.guarded):
        return None
    from fulmen_core.registry import Discovery
    from fulmen_serving.guarding.guard_process import GuardProcess

    return GuardProcess(options.policy, registry.discovery or Discovery())


def start_model(args: Namespace, options: ServingOptions, registry: Registry) -> ModelProcess | None:
    """Start the process that loads the model; None if it is to run in this one.

    Raises:
        UserError: the directory holds no model, or a limit makes no sense.
    """
    if args.step_seconds <= 0:
        raise UserError(f"--step-seconds {args.step_seconds:g} is no time", remedy="give more than a step takes")
    if args.in_process or os.name != "posix":
        return None
    from fulmen_serving.engine.model_process import ModelProcess
    from fulmen_serving.loading import plan_model

    return ModelProcess(plan_model(options, registry), step_patience=args.step_seconds)
