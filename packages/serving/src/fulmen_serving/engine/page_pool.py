"""The runner's pages: who uses them. A page may be used by several sequences that begin alike."""

from __future__ import annotations

from collections.abc import Iterable


class PagePool:
    """Pages ``0 .. size-1`` with a count of users each. The last one freed is the next one taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._users = [0] * size
        self._free = list(range(size))[::-1]

    @property
    def free(self) -> int:
        """How many pages nobody uses."""
        return len(self._free)

    def users(self, page: int) -> int:
        """How many sequences use `page`."""
        return self._users[page]

    def take(self, count: int) -> list[int]:
        """Return `count` free pages, each with one user.

        Raises:
            ValueError: there are fewer.
        """
        if count > len(self._free):
            raise ValueError(f"{count} pages are wanted and {len(self._free)} are free")
        taken = [self._free.pop() for _ in range(count)]
        for page in taken:
            self._users[page] = 1
        return taken

    def share(self, pages: Iterable[int]) -> None:
        """Each of `pages` has one more user.

        Raises:
            ValueError: nobody uses one of them, so that what it holds is not known.
        """
        for page in pages:
            if not self._users[page]:
                raise ValueError(f"page {page} is free and cannot be shared")
            self._users[page] += 1

    def drop(self, pages: Iterable[int]) -> None:
        """Each of `pages` has one user less.

        Raises:
            ValueError: nobody uses one of them: two sequences would come to share it.
        """
        for page in pages:
            if not self._users[page]:
                raise ValueError(f"page {page} of {self.size} is not taken")
            self._users[page] -= 1
            if not self._users[page]:
                self._free.append(page)
