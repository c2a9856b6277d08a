"""How many threads to run on, and why: by what the machine gives, and for PyTorch by a short measurement.

The native kernels have threads of their own, which leave out one that the system does not schedule: for them the cores
that may be used are enough. PyTorch's OpenMP threads wait for the slowest at the end of every operation, so a second
thread beside another process's work costs up to nine tenths of the speed: there it must have shown its worth.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from fulmen_backend_cpu.cores import Cores, look, physical_cores, quota, usable_cores

#: Seconds of the whole measurement. Slices of it go to the candidates in turns, so that a passing load hits all.
_BUDGET = 0.15
_ROUNDS = 3
#: A further thread must gain this much to be taken: it has others' work in its way sooner or later.
_WORTH = 1.15
#: On a busy machine it must gain this much: what it shows in a tenth of a second is luck.
_WORTH_WHEN_BUSY = 1.5
#: Of the product: the tokens and the width of a small training step. At 256 rows waiting costs more than the product,
#: and two threads show 0.75 of one's speed on a machine where they train 1.7 times as fast.
_ROWS, _WIDTH = 2048, 256


@dataclass(frozen=True, slots=True)
class ThreadChoice:
    """A number of threads, with the reason and what it is based on.

    `rates` holds, for each number that was tried, products a second: the median of rounds. Empty if none was measured.
    """

    threads: int
    reason: str
    cores: Cores
    rates: Mapping[int, float]

    def as_json(self) -> dict[str, Any]:
        """What `fulmen doctor --json` prints."""
        cores = self.cores
        return {
            "threads": self.threads,
            "reason": self.reason,
            "cores_allowed": list(cores.allowed),
            "cores_physical": cores.physical,
            "quota": cores.quota,
            "busy": round(cores.busy, 2),
            "products_per_s": {str(threads): round(rate) for threads, rate in self.rates.items()},
        }


def choose_threads(asked: int) -> tuple[int, str]:
    """The number of threads of the native kernels for `asked` (0: choose), and the reason."""
    if asked > 0:
        return asked, "asked for"
    allowed = usable_cores()
    cores = Cores(allowed, physical_cores(allowed), quota(), 0.0)
    return cores.usable, _limits(cores)


def run_on(threads: int | None) -> dict[str, Any]:
    """Set the number of PyTorch's threads: `threads`, or the best by `measure_threads`. Returns the choice and why.

    This is what `BackendInfo.threads` of this backend names. A number other than the first run's changes the last bits
    of a training run: whoever resumes one gives the number it began with.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
        return {"threads": threads, "reason": "given"}
    return measure_threads().as_json()


def measure_threads() -> ThreadChoice:
    """Choose the number of PyTorch's threads: look at the machine, then time a small product. Takes 0.2 s.

    PyTorch is left with the number chosen.
    """
    import torch

    cores = look()
    rates: dict[int, float] = {}
    if cores.usable > 1:
        rates = time_products(candidates(cores))
    threads, reason = decide(cores, rates)
    torch.set_num_threads(threads)
    return ThreadChoice(threads, reason, cores, rates)


def candidates(cores: Cores) -> tuple[int, ...]:
    """1, 2, 4, ... and all usable cores; and the free ones, if others are at work."""
    doubling = {1 << power for power in range(cores.usable.bit_length())}
    return tuple(sorted(doubling | {cores.usable, cores.free}))


def decide(cores: Cores, rates: Mapping[int, float]) -> tuple[int, str]:
    """The number of threads for these `rates`, products a second by number of threads, and the reason in words.

    Goes up from one thread, and takes a further step only if it gains `_WORTH`, or on a busy machine
    `_WORTH_WHEN_BUSY`. Never more threads than free cores.
    """
    if cores.usable == 1 or len(rates) < 2:
        return cores.usable, _limits(cores)
    busy = cores.free < cores.usable
    chosen = min(rates)
    for threads in sorted(rates):
        if threads <= cores.free and rates[threads] >= rates[chosen] * (_WORTH_WHEN_BUSY if busy else _WORTH):
            chosen = threads
    most = max(rates)
    gain = f"{most} threads made {rates[most] / rates[min(rates)]:.2f} times the products of one"
    if busy:
        return chosen, f"others keep {cores.busy:.1f} cores busy, which leaves {cores.free} free; {gain}"
    return chosen, f"{_limits(cores)}; {gain}"


def time_products(numbers: tuple[int, ...], budget: float = _BUDGET) -> dict[int, float]:
    """Products a second of PyTorch on each number of threads, in rounds of slices of `budget` seconds in all.

    A product and a sum over it: the fork and the join that every operation of a step pays.
    """
    import torch

    left = torch.randn(_ROWS, _WIDTH)
    right = torch.randn(_WIDTH, _WIDTH)
    slice_seconds = budget / (_ROUNDS * len(numbers))
    rates: dict[int, list[float]] = {number: [] for number in numbers}
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            for number in numbers:
                torch.set_num_threads(number)
                (left @ right).sum()
                done = 0
                begin = now = time.perf_counter()
                while now - begin < slice_seconds:
                    (left @ right).relu_().sum()
                    done += 1
                    now = time.perf_counter()
                rates[number].append(done / (now - begin))
    return {number: median(found) for number, found in rates.items()}


def _limits(cores: Cores) -> str:
    """Which of mask, siblings and quota says how many threads are usable."""
    words = f"the process may use {len(cores.allowed)} core{'s' if len(cores.allowed) > 1 else ''}"
    if cores.physical < len(cores.allowed):
        words = f"the process may use {len(cores.allowed)} hardware threads of {cores.physical} cores"
    if cores.quota is not None and cores.usable < cores.physical:
        words += f", and its control group {cores.quota:g} cores' worth of time"
    return words
