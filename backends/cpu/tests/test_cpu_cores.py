"""What the process may use is read from the kernel's files, whatever the version of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fulmen_backend_cpu.cores import Cores, busy_times, look, others, physical_cores, quota


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        # The group is unlimited, the one above it is not.
        (
            {
                "proc/self/cgroup": "0::/pod/box\n",
                "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "400000 100000\n",
            },
            4.0,
        ),
        # Both are limited: the tighter counts.
        (
            {
                "proc/self/cgroup": "0::/pod/box\n",
                "sys/fs/cgroup/pod/box/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
            },
            2.0,
        ),
        # A container sees its own group at the mount's top and the host's path in /proc.
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/box\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_the_quota_is_the_tightest_of_the_group_and_those_above_it(
    tmp_path: Path, files: dict[str, str], cores: float | None
) -> None:
    assert quota(write(tmp_path, files)) == cores


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_hardware_threads_of_one_core_count_once(tmp_path: Path, name: str) -> None:
    siblings = {0: "0,4", 4: "0,4", 1: "1,5", 5: "1,5", 2: "2,6"}
    topology = {f"sys/devices/system/cpu/cpu{i}/topology/{name}": f"{text}\n" for i, text in siblings.items()}
    root = write(tmp_path, topology)
    assert physical_cores([0, 4], root) == 1
    assert physical_cores([0, 1, 2, 4, 5], root) == 3
    assert physical_cores([0, 1], tmp_path / "nothing") == 2


def test_others_are_whoever_kept_the_allowed_cores_from_idling_less_ourselves(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    head = "cpu  9 9 9 9 9 9 9 9 0 0\n"
    #                       user nice system idle iowait irq softirq steal guest guest_nice
    before = head + "cpu0 100 0 50 1000 5 0 0 0 0 0\ncpu1 0 0 0 1000 0 0 0 0 0 0\nintr 1 2 3\n"
    grown = f"cpu0 {100 + tick} 0 50 1000 5 0 0 {tick} 0 0\ncpu1 {tick} 0 0 1000 {tick} 0 0 0 0 0\n"
    first = busy_times(write(tmp_path, {"a": before}) / "a")
    second = busy_times(write(tmp_path, {"b": head + grown}) / "b")
    assert first[0] == 150 / tick
    assert others(first, second, [0, 1], seconds=4.0, own=1.0) == pytest.approx((2 + 1 - 1) / 4)
    assert others(first, second, [1], seconds=4.0, own=0.0) == pytest.approx(1 / 4)
    assert others(first, second, [7], seconds=4.0, own=0.0) == 0.0


@pytest.mark.parametrize(
    ("cores", "usable", "free"),
    [
        (Cores((0, 1), 2, None, 0.0), 2, 2),
        (Cores((0, 1), 2, None, 0.2), 2, 2),
        (Cores((0, 1), 2, None, 0.9), 2, 1),
        (Cores((0, 1), 2, None, 5.0), 2, 1),
        (Cores((0, 1, 2, 3), 2, None, 0.0), 2, 2),
        (Cores((0, 1, 2, 3), 4, 1.5, 0.0), 1, 1),
        (Cores((0, 1, 2, 3), 4, 0.5, 0.0), 1, 1),
        (Cores(tuple(range(16)), 16, None, 3.0), 16, 13),
    ],
)
def test_usable_and_free_cores_are_at_least_one(cores: Cores, usable: int, free: int) -> None:
    assert (cores.usable, cores.free) == (usable, free)


def test_this_machine_can_be_looked_at() -> None:
    cores = look(seconds=0.02)
    assert 1 <= cores.usable <= len(cores.allowed)
    assert 0 <= cores.busy <= len(cores.allowed) + 1
