"""Products on one thread, and on as many as before afterwards, whichever thread asks."""

from __future__ import annotations

import threading

import pytest
from threadpoolctl import ThreadpoolController

from fulmen_safety.learned.one_thread import one_thread


def threads() -> set[int]:
    return {library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()}


@pytest.mark.parametrize("in_main", [True, False])
def test_products_are_on_one_thread_meanwhile(in_main: bool) -> None:
    seen: list[set[int]] = []

    def look() -> None:
        before = threads()
        with one_thread():
            seen.append(threads())
        assert threads() == before

    if in_main:
        look()
    else:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == [{1}]


def test_two_that_overlap_leave_what_they_found() -> None:
    before, inside, leave = threads(), threading.Event(), threading.Event()

    def other() -> None:
        with one_thread():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with one_thread():
        assert threads() == {1}
    leave.set()
    thread.join()
    assert threads() == before
