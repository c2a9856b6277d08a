"""Hooks of the group ``fulmen.backends.v1``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fulmen_core.hooks import hookspec

if TYPE_CHECKING:
    from fulmen_core.descriptors import BackendInfo


@hookspec
def fulmen_backends() -> Iterable[BackendInfo]:  # type: ignore[empty-body]
    """Describe the hardware backends of this plugin.

    Called by: `fulmen backends`, and once by `Registry.backend(name)` when a backend is picked.
    May go wrong: `probe` must not raise; it returns `Availability(ok=False, reason=...)`. `load` runs only for the one
    picked.
    """
