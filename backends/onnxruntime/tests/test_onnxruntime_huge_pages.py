"""Memory that was allocated meanwhile is asked to be backed by huge pages, and nothing else is touched."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulmen_backend_onnxruntime.huge_pages import _allowed, _without, backing_new_memory

SIZE = 16 << 20

cell = st.integers(0, 30)
regions = st.lists(st.tuples(cell, cell).filter(lambda pair: pair[0] < pair[1]), max_size=6)


@given(st.tuples(cell, cell).filter(lambda pair: pair[0] < pair[1]), regions)
def test_what_was_there_before_is_left_out(region: tuple[int, int], others: list[tuple[int, int]]) -> None:
    covered = {place for begin, end in others for place in range(begin, end)}
    found = [place for begin, end in _without(region, sorted(others)) for place in range(begin, end)]
    assert found == [place for place in range(*region) if place not in covered]


def huge_kilobytes(memory: mmap.mmap) -> int:
    """How much of the mapping that begins as `memory` does lies in huge pages, by the kernel."""
    import ctypes

    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and ":" not in first:
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end or address <= begin < address + SIZE
        elif inside and first == "AnonHugePages:":
            found += int(line.split()[1])
    return found


@pytest.mark.skipif(sys.platform != "linux" or not _allowed(), reason="no transparent huge pages here")
def test_memory_that_was_written_inside_lies_in_huge_pages() -> None:
    with backing_new_memory():
        memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.write(b"x" * SIZE)
    if not huge_kilobytes(memory):
        pytest.skip("the kernel collapses nothing at once: it is older than Linux 6.1, or memory is scattered")
    assert memory[:3] == b"xxx"
    assert huge_kilobytes(memory) >= SIZE // 1024 // 2
