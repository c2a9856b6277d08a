"""Huge pages for what a library allocates: weights of gigabytes are read through few table entries, not a million.

ONNX Runtime packs weights into memory of its own and asks for no huge pages. Where Linux gives them to those who ask
(`transparent_hugepage/enabled` is "madvise", as most distributions have it), decoding waits for the page table. What
is here asks in the library's place: for all anonymous memory that the process has got meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

# madvise(2)
_MADV_HUGEPAGE = 14
_MADV_COLLAPSE = 25  # Linux 6.1: now, not when the kernel comes to it

_PAGE = 2 << 20
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS = Path("/proc/self/maps")

Region = tuple[int, int]


@contextlib.contextmanager
def backing_new_memory() -> Iterator[None]:
    """Back the anonymous memory that is allocated inside with huge pages, when it ends. Elsewhere than on Linux, or
    where the administrator has turned them off, do nothing.
    """
    usable = sys.platform == "linux" and _allowed()
    before = _anonymous() if usable else []
    yield
    if usable:
        for region in _anonymous():
            for begin, end in _without(region, before):
                _ask(-(-begin // _PAGE) * _PAGE, end // _PAGE * _PAGE)


def _allowed() -> bool:
    try:
        return "[never]" not in _SETTING.read_text()
    except OSError:
        return False


def _anonymous() -> list[Region]:
    """Writable memory of this process that no file is behind, by rising address."""
    regions = []
    for line in _MAPS.read_text().splitlines():
        place, rights, _, _, inode, *name = line.split()
        if rights.startswith("rw") and inode == "0" and name in ([], ["[heap]"]):
            begin, end = (int(address, 16) for address in place.split("-"))
            regions.append((begin, end))
    return regions


def _without(region: Region, others: list[Region]) -> Iterator[Region]:
    """The parts of `region` that are in none of `others`, which rise."""
    begin, end = region
    for other_begin, other_end in others:
        if other_end <= begin or other_begin >= end:
            continue
        if begin < other_begin:
            yield begin, other_begin
        begin = max(begin, other_end)
    if begin < end:
        yield begin, end


def _ask(begin: int, end: int) -> None:
    """Ask for the pages between two addresses. What the kernel refuses stays as it is."""
    libc = ctypes.CDLL(None)

    def advise(start: int, size: int, advice: int) -> None:
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)

    if begin < end:
        advise(begin, end - begin, _MADV_HUGEPAGE)
    # One by one: of a longer stretch the kernel leaves the rest when it does not find a free page at once, as where
    # files fill the memory; asked again, it makes room.
    for page in range(begin, end, _PAGE):
        advise(page, _PAGE, _MADV_COLLAPSE)
