"""NumPy's products on one thread. Those of a stretch of text are too small to share: beside any other load the threads
wait for each other, and what takes 5 ms takes 200.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _libraries() -> ThreadpoolController:
    """Return the libraries of products that are loaded: finding them takes milliseconds."""
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Return a context in which the process computes products on the thread that asks for them. Of several threads that
    are in one the first decides, and gives back what it found.
    """
    context: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return context
