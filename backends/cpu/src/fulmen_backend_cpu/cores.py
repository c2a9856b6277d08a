"""What this process may use of the machine's cores, and how busy they are: affinity, quota, siblings, load.

In: files of the Linux kernel under a root, so that tests can write their own. Out: a `Cores`. Where a file is missing
(other systems, odd containers) the answer is the one that limits nothing. May import: the standard library.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of this process.

    Attributes:
        allowed: logical cores that the affinity mask lets it run on.
        physical: how many different cores those are: hardware threads of one core share its units.
        quota: cores' worth of time that its control group may use, or None.
        busy: cores' worth of time that other processes take of `allowed`.
    """

    allowed: tuple[int, ...]
    physical: int
    quota: float | None
    busy: float

    @property
    def usable(self) -> int:
        """Threads beyond which more cannot gain: physical cores within the quota, at least 1.

        A quota of 1.5 cores gives 1: a second thread would stand still a third of the time, and the first wait for it.
        """
        return self.physical if self.quota is None else max(1, min(self.physical, int(self.quota + 0.05)))

    @property
    def free(self) -> int:
        """Usable cores that nobody else holds for more than a third of the time, at least 1."""
        return max(1, self.usable - int(self.busy + 2 / 3))


def look(seconds: float = 0.05, root: Path = _ROOT) -> Cores:
    """Look at the machine; the load is what others did in the next `seconds`."""
    allowed = usable_cores()
    before, own = busy_times(root / "proc/stat"), time.process_time()
    started = time.monotonic()
    time.sleep(seconds)
    after, own = busy_times(root / "proc/stat"), time.process_time() - own
    busy = others(before, after, allowed, time.monotonic() - started, own)
    return Cores(allowed, physical_cores(allowed, root), quota(root), busy)


def usable_cores() -> tuple[int, ...]:
    """The logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def physical_cores(allowed: Iterable[int], root: Path = _ROOT) -> int:
    """How many cores the hardware threads `allowed` are, from ``topology/thread_siblings_list``."""
    cores = set()
    for thread in allowed:
        topology = root / f"sys/devices/system/cpu/cpu{thread}/topology"
        siblings = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")
        cores.add(siblings.strip() if siblings else str(thread))
    return len(cores)


def quota(root: Path = _ROOT) -> float | None:
    """Cores' worth of time that the control group of this process may use: the least over it and those above it.

    Version 2 says ``cpu.max``, version 1 ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``. In a container the group's
    path is often the host's and its own files lie at the mount's top: both places are asked.
    """
    limits = []
    for line in (_read(root / "proc/self/cgroup") or "0::/\n1:cpu:/\n").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
            limits += [_quota_v2(_read(folder / "cpu.max")) for mount in mounts for folder in _upwards(mount, path)]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup/cpu", root / "sys/fs/cgroup/cpu,cpuacct"]
            limits += [
                _quota_v1(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
                for mount in mounts
                for folder in _upwards(mount, path)
            ]
    return min((limit for limit in limits if limit is not None), default=None)


def busy_times(stat: Path) -> dict[int, float]:
    """Seconds that each core has not been idle, from ``/proc/stat``; empty where there is none.

    Time stolen by the host counts: it is not there to be used.
    """
    times: dict[int, float] = {}
    tick = float(os.sysconf("SC_CLK_TCK")) if hasattr(os, "sysconf") else 100.0
    for line in (_read(stat) or "").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and len(fields) >= 5:
            ticks = [int(field) for field in fields[:8]]  # user nice system idle iowait irq softirq steal
            times[int(name[3:])] = (sum(ticks) - ticks[3] - ticks[4]) / tick
    return times


def others(
    before: dict[int, float], after: dict[int, float], allowed: Iterable[int], seconds: float, own: float
) -> float:
    """Cores' worth of time that others took of `allowed` within `seconds`, in which this process used `own` seconds."""
    spent = sum(after[core] - before[core] for core in allowed if core in before and core in after)
    return max(0.0, (spent - own) / seconds) if seconds > 0 else 0.0


def _upwards(mount: Path, path: str) -> list[Path]:
    """The group's folder under `mount` and all above it, `mount` included."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]


def _quota_v2(text: str | None) -> float | None:
    words = (text or "").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() and int(words[1]) else None


def _quota_v1(quota_us: str | None, period_us: str | None) -> float | None:
    if quota_us is None or period_us is None or int(quota_us) <= 0 or int(period_us) <= 0:
        return None
    return int(quota_us) / int(period_us)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
