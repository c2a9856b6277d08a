"""Usage on its way into the database: added up in memory by any thread, written in batches by a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

from fulmen_core.errors import UserError
from fulmen_serving.platform.api_key import ApiKey
from fulmen_serving.platform.prices import PriceTable
from fulmen_serving.platform.usage_store import HOUR, Usage, UsageCell, UsageStore, month_of

logger = logging.getLogger(__name__)

_Month = tuple[int, int]  # organisation id, Unix second in which the month began


class UsageMeter:
    """Counts usage and writes it. What could not be written is kept and tried again; `close` writes the rest.

    Args:
        store: where it goes.
        prices: what tokens cost when they are used.
        seconds: between two batches.
        clock: Unix seconds.
    """

    def __init__(
        self, store: UsageStore, prices: PriceTable, *, seconds: float = 1.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._prices, self._clock = store, prices, clock
        self._lock = threading.Lock()  # of the four below; never held while the database is asked
        self._cells: dict[UsageCell, Usage] = {}
        self._last_used: dict[str, int] = {}
        self._unwritten: Counter[_Month] = Counter()  # tokens that the database does not have
        self._written: dict[_Month, int] = {}  # tokens that it had when last asked, and what was written since
        self._writing = threading.Lock()  # held by whoever moves tokens from one to the other
        self._failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(seconds,), name="fulmen-usage", daemon=True)
        self._thread.start()

    def add(self, key: ApiKey, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count one request that ended."""
        now = self._clock()
        cell = UsageCell(key.id, model, int(now) // HOUR * HOUR)
        cost = self._prices.cost(model, prompt_tokens, completion_tokens)
        used = Usage(1, prompt_tokens, completion_tokens, cost)
        with self._lock:
            self._cells[cell] = self._cells.get(cell, Usage()).plus(used)
            self._unwritten[key.organisation_id, month_of(now)] += prompt_tokens + completion_tokens

    def touch(self, key: ApiKey) -> None:
        """Note that a key is used now."""
        with self._lock:
            self._last_used[key.id] = int(self._clock())

    def used_this_month(self, organisation_id: int) -> int:
        """Return the tokens of an organisation in this month: what is counted here, and of other servers what was read
        by the last `refresh`.
        """
        month = organisation_id, month_of(self._clock())
        with self._lock:
            return self._written.get(month, 0) + self._unwritten[month]

    def refresh(self, organisation_id: int) -> None:
        """Read the tokens of an organisation in this month from the database.

        Raises:
            UserError: the database failed.
        """
        month = organisation_id, month_of(self._clock())
        with self._writing:  # no batch is half in: what the database has and what is unwritten add up
            tokens = self._store.tokens_since(*month)
            with self._lock:
                self._written = {known: count for known, count in self._written.items() if known[1] >= month[1]}
                self._written[month] = tokens

    def flush(self) -> bool:
        """Write what there is; return whether nothing is left that should have been written."""
        with self._writing:
            with self._lock:
                cells, self._cells = self._cells, {}
                last_used, self._last_used = self._last_used, {}
                tokens = self._unwritten.copy()
            if not cells and not last_used:
                return True
            try:
                self._store.add(cells, last_used)
            except UserError as error:
                with self._lock:
                    for cell, used in cells.items():
                        self._cells[cell] = self._cells.get(cell, Usage()).plus(used)
                    self._last_used = last_used | self._last_used
                if not self._failing:
                    logger.warning("usage cannot be written and is kept until it can: %s", error)
                self._failing = True
                return False
            with self._lock:
                self._unwritten -= tokens
                for month, count in tokens.items():
                    if month in self._written:
                        self._written[month] += count
            self._failing = False
            return True

    def close(self) -> None:
        """Write what is left and end the thread. Idempotent."""
        self._closing.set()
        self._thread.join()
        if not self.flush():
            for cell, used in self._cells.items():  # the log is the last place where it can be kept
                logger.error("usage that could not be written: %s %s", cell, used)

    def _run(self, seconds: float) -> None:
        while not self._closing.wait(seconds):
            try:
                self.flush()
            except Exception:  # a defect must not end the metering of a server that goes on
                logger.exception("a batch of usage failed")
