"""What one invocation of `fulmen` was told before its verb; the settings and the registry that follow, on demand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fulmen_core.cli.global_options import GlobalOptions

if TYPE_CHECKING:
    from fulmen_core.registry import Registry
    from fulmen_core.settings import Settings

#: What numeric libraries read when they are imported.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


#: OpenMP threads spin for some microseconds while they wait, then sleep. By default they spin for milliseconds and burn
#: the core that the thread they wait for may need: beside a busy neighbour, training on two threads keeps a third of
#: its speed. To sleep at once costs a quarter of the speed where there is none (docs/explanation/performance.md).
_WAITING = {"GOMP_SPINCOUNT": "1000"}
_WAITING_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


class _Context:
    """One invocation. The two objects are made once, when first asked for: `fulmen --help` pays for neither."""

    def __init__(self, options: GlobalOptions) -> None:
        self.options = options
        self.settings: Settings | None = None
        self.registry: Registry | None = None


_current = _Context(GlobalOptions())


def begin(options: GlobalOptions) -> None:
    """Start an invocation: forget the settings and registry of the one before."""
    global _current
    _current = _Context(options)


def settings() -> Settings:
    """Return the settings: the environment, then the options before the verb.

    Raises:
        UserError: a ``FULMEN_…`` variable does not fit.
    """
    if _current.settings is None:
        _current.settings = _read_settings(_current.options, os.environ)
    return _current.settings


def registry() -> Registry:
    """Return the registry of installed plugins under the settings; importing none.

    Raises:
        UserError: a plugin file is missing, or the settings are strict and a plugin is at fault.
    """
    if _current.registry is None:
        from fulmen_core.cli.verbs import BUILT_IN
        from fulmen_core.registry import Registry

        now = settings()
        _current.registry = Registry.discover(
            now.plugins_disabled, _current.options.files, now.plugins_strict, reserved=BUILT_IN.keys()
        )
    return _current.registry


def debug() -> bool:
    """Whether tracebacks are wanted: ``--debug``, or FULMEN_DEBUG where the settings can be read."""
    if _current.options.debug:
        return True
    return _current.settings is not None and _current.settings.debug


def limit_threads() -> None:
    """Tell numeric libraries that are not imported yet how many threads they may use, if the settings say so; and how
    their threads wait for one another, unless the environment says so.
    """
    if settings().threads is not None:
        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(settings().threads)))
    if not any(name in os.environ for name in _WAITING_VARIABLES):
        os.environ.update(_WAITING)


def _read_settings(options: GlobalOptions, environment: Mapping[str, str]) -> Settings:
    import logging

    from pydantic import ValidationError

    from fulmen_core.recipes import invalid
    from fulmen_core.settings import Settings
    from fulmen_core.suggestions import closest

    given: dict[str, Any] = {}
    if options.threads is not None:
        given["threads"] = options.threads
    if options.debug:
        given["debug"] = True
    try:
        read = Settings(**given)
    except ValidationError as error:
        raise invalid(error, Settings, place="the environment (FULMEN_...)") from error
    known = {f"FULMEN_{name.upper()}" for name in Settings.model_fields}
    for name in environment:
        # Other tools may keep FULMEN_ variables of their own, so only what looks like a slip of the pen is worth a
        # word.
        if name.startswith("FULMEN_") and name not in known and (near := closest(name, known)):
            logging.getLogger(__name__).warning("%s is no setting; did you mean %s?", name, near)
    return read.model_copy(update={"plugins_disabled": (*read.plugins_disabled, *options.disabled)})
