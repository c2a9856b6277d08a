"""The last requests that ended, in memory: what the page's RAISE view shows. Records hold no text."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

Record = Mapping[str, object]


class RecentRequests:
    """The records of the last `keep` requests. Thread-safe."""

    def __init__(self, keep: int = 200) -> None:
        self.keep = keep
        self._records: deque[Record] = deque(maxlen=keep)

    def add(self, record: Record) -> None:
        """Keep `record`; the oldest beyond `keep` is forgotten."""
        self._records.append(record)

    def newest_first(self) -> list[Record]:
        """Return what is kept."""
        return list(self._records.copy())[::-1]
