"""Which adapters a runner holds, under which numbers: what every runner that serves them does alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fulmen_core.adapters.adapter import Adapter, load_adapter
from fulmen_core.model.config import ModelConfig
from fulmen_core.runner import EngineLimits, SequenceStep


class LoadedAdapters:
    """The numbers of the adapters of one runner, of 1 to ``limits.adapters``.

    Args:
        config: of the runner's model.
        limits: of the runner.
        put: takes an adapter under a number; if it raises, the number stays free.
        drop: forgets what lies under a number.
    """

    def __init__(
        self,
        config: ModelConfig,
        limits: EngineLimits,
        put: Callable[[int, Adapter], None],
        drop: Callable[[int], None],
    ) -> None:
        self._config, self._limits = config, limits
        self._put, self._drop = put, drop
        self._numbers: set[int] = set()

    def load(self, directory: Path) -> int:
        """As `fulmen_core.runner.Runner.load_adapter`."""
        limits = self._limits
        number = next((n for n in range(1, limits.adapters + 1) if n not in self._numbers), 0)
        if not number:
            raise ValueError(f"all {limits.adapters} adapters of the limits are loaded")
        adapter = load_adapter(directory, self._config, limits.adapter_rank)
        try:
            self._put(number, adapter)
        except BaseException:
            self._drop(number)
            raise
        self._numbers.add(number)
        return number

    def unload(self, number: int) -> None:
        """As `fulmen_core.runner.Runner.unload_adapter`."""
        if number in self._numbers:
            self._numbers.remove(number)
            self._drop(number)

    def refuse_unknown(self, batch: Sequence[SequenceStep]) -> None:
        """Refuse a step whose adapters are not all loaded.

        Raises:
            ValueError: one is not.
        """
        for step in batch:
            if step.adapter and step.adapter not in self._numbers:
                raise ValueError(f"adapter {step.adapter} is not loaded")
