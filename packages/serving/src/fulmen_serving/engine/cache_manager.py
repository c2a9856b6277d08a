"""Slots and pages of all sequences: found again, shared, extended, kept, evicted."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fulmen_core.runner import Runner
from fulmen_serving.engine.kept_prefix import KeptPrefix, KeptPrefixes, Reach, common_prefix, superseded
from fulmen_serving.engine.page_pool import PagePool
from fulmen_serving.engine.sequence import SequenceState
from fulmen_serving.engine.slots import SlotPool

#: Shorter prefixes are not worth a slot, a copy or a wait.
MIN_SHARED = 16


@dataclass(frozen=True, slots=True)
class Found:
    """Where a prefix lies that is computed already, and how much of it can be gone on from.

    Attributes:
        source: where; None: nowhere.
        tokens: how many can be gone on from.
        why: the same in words.
        alike: of how many tokens it is known that sequences share them, whether or not they can be gone on from.
        promising: a running sequence that will have computed more of the prefix, and how much.
    """

    source: SequenceState | KeptPrefix | None
    tokens: int
    why: str
    alike: int = 0
    promising: tuple[SequenceState, int] | None = None


class CacheManager:
    """The caches of one runner. Not thread-safe.

    Args:
        runner: whose slots and pages these are.
        multiple: of prompts computed in whole chunks of so many tokens, prefixes are reused in such chunks only; 0: at
            any length.
    """

    def __init__(self, runner: Runner, multiple: int = 0) -> None:
        self.runner = runner
        self.slots = SlotPool(runner.layout.slots)
        self.pages = PagePool(runner.layout.pages)
        self.kept = KeptPrefixes()
        self.reach = Reach.of(runner.cache, runner.layout, multiple)
        self.keeps = runner.limits.cached_sequences > 0
        self.evicted = 0

    def find(self, state: SequenceState, running: Iterable[SequenceState]) -> Found:
        """Look for the longest computed prefix of `state` among what is kept and what runs."""
        if not self.keeps:
            return Found(None, 0, "prefixes are not kept")
        reach, least = self.reach, MIN_SHARED
        known_T = np.array(state.known[:-1], np.int32)  # the last token's result is wanted: it is always computed
        source: SequenceState | KeptPrefix | None = None
        tokens = alike = 0
        for unit in self.kept:
            if unit.salt == state.request.cache_salt:
                shared = common_prefix(known_T, unit.tokens_T)
                alike = max(alike, shared)
                usable = reach.usable(shared, len(unit.tokens_T), unit.chunked, unit.written)
                if usable >= max(least, tokens + 1):
                    source, tokens = unit, usable
        promising: tuple[SequenceState, int] | None = None
        for other in running:
            if other.request.cache_salt == state.request.cache_salt:
                shared = common_prefix(known_T, other.prompt_T)
                alike = max(alike, shared)
                chunked = min(other.computed, len(other.prompt_T))
                usable = reach.usable(shared, other.computed, chunked, other.written)
                if usable >= max(least, tokens + 1):
                    source, tokens = other, usable
                ahead = reach.cut(shared)
                if other.computed < ahead and ahead >= max(least, promising[1] + 1 if promising else 0):
                    promising = (other, ahead)
        if promising is not None and promising[1] < tokens + least:
            promising = None
        return Found(source, tokens, _why(source, tokens, alike), reach.cut(alike), promising)

    def admit(self, state: SequenceState, found: Found) -> str:
        """Give `state` a slot and the pages of all that it knows, with what was found in them.

        Returns:
            why it cannot have them now; empty if it has.
        """
        layout, source = self.runner.layout, found.source
        unit = source if isinstance(source, KeptPrefix) else None
        if unit is not None and not unit.branch and not self.slots.free:
            why = self._adopt(state, unit, found.tokens)
        else:
            why = self._place(state, source, found.tokens)
        if not why and not self.extend(state, len(state.known) + 1):
            self.release(state)
            why = f"{layout.pages_for(len(state.known) + 1)} pages are needed and {self.pages.free} are free"
        if why and unit is not None:  # rather without what was found, which can then make room, than not at all
            return self.admit(state, Found(None, 0, f"{found.why}, and had to make room"))
        if why:
            return why
        state.slot_since = time.perf_counter()
        return ""

    def extend(self, state: SequenceState, tokens: int) -> bool:
        """Give `state` pages for `tokens` tokens, evicting what is kept if need be; False if there are not enough."""
        missing = self.runner.layout.pages_for(min(tokens, self.runner.limits.max_context)) - len(state.pages)
        if missing > 0:
            if not self._make_room(0, missing):
                return False
            state.pages.extend(self.pages.take(missing))
        return True

    def mark(self, state: SequenceState) -> None:
        """Keep what `state` has computed as a branch, beside it, if there is room."""
        if self.keeps and state.slot is not None and self._make_room(1, self._own_pages(state.computed)):
            slot = self.slots.take()
            pages = self._fork(state.slot, state.pages, slot, state.computed)
            self._keep(slot, pages, state, branch=True)

    def finish(self, state: SequenceState, *, keep: bool) -> None:
        """Take slot and pages of `state` back; what it computed is kept if that is wanted and worth it."""
        if state.slot is None:
            return
        if not (keep and self.keeps and state.computed >= MIN_SHARED):
            self.release(state)
            return
        used = self.runner.layout.pages_for(state.computed)
        self.pages.drop(state.pages[used:])
        self._keep(state.slot, state.pages[:used], state, branch=False)
        state.slot, state.pages, state.computed, state.written = None, [], 0, 0

    def release(self, state: SequenceState) -> None:
        """Take slot and pages of `state` back and keep nothing."""
        if state.slot is not None:
            self._free(state.slot, state.pages)
            state.slot, state.pages, state.computed, state.written = None, [], 0, 0

    def forget(self, request_id: str) -> None:
        """Keep nothing of what the request computed: it may not be offered to anybody."""
        for unit in self.kept:
            if unit.request_id == request_id:
                self._evict(unit)

    def _place(self, state: SequenceState, source: SequenceState | KeptPrefix | None, tokens: int) -> str:
        """Give `state` a free slot, with a copy of the first `tokens` tokens of `source` in it."""
        unit = source if isinstance(source, KeptPrefix) else None
        needed = self.runner.layout.pages_for(len(state.known) + 1) - self._whole_pages(tokens)
        if not self._make_room(1, needed, but=unit):
            return f"{needed} pages are needed and {self.pages.free} are free"
        state.slot = self.slots.take()
        if source is not None and source.slot is not None:
            state.pages = self._fork(source.slot, source.pages, state.slot, tokens)
            state.computed, state.written = tokens, source.written
        if unit is not None:
            self.kept.touch(unit)
        return ""

    def _adopt(self, state: SequenceState, unit: KeptPrefix, tokens: int) -> str:
        """Let `state` go on in the place of `unit`, of which nothing is kept then."""
        used = self.runner.layout.pages_for(tokens)
        # what lies in a page that is not whole is written over: it must be nobody else's
        own = self._own_pages(tokens) and self.pages.users(unit.pages[used - 1]) > 1
        if own and not self._make_room(0, 1, but=unit):
            return "a page is needed and none is free"
        self.kept.remove(unit)
        self.pages.drop(unit.pages[used:])
        state.slot, state.pages, state.computed = unit.slot, unit.pages[:used], tokens
        state.written = unit.written
        if own:
            [page] = self.pages.take(1)
            self.runner.copy_page(state.pages[-1], page)
            self.pages.drop(state.pages[-1:])
            state.pages[-1] = page
        return ""

    def _fork(self, slot: int, pages: list[int], target: int, tokens: int) -> list[int]:
        """Copy the first `tokens` tokens into slot `target`; return their pages: whole ones are shared."""
        self.runner.copy_slot(slot, target, tokens)
        whole = self._whole_pages(tokens)
        forked = pages[:whole]
        self.pages.share(forked)
        if self._own_pages(tokens):
            forked += self.pages.take(1)
            self.runner.copy_page(pages[whole], forked[-1])
        return forked

    def _whole_pages(self, tokens: int) -> int:
        size = self.runner.layout.page_tokens
        return tokens // size if size else 0

    def _own_pages(self, tokens: int) -> int:
        """Pages that a fork of so many tokens cannot share: the last, if it is not whole."""
        return self.runner.layout.pages_for(tokens) - self._whole_pages(tokens)

    def _keep(self, slot: int, pages: list[int], state: SequenceState, *, branch: bool) -> None:
        unit = KeptPrefix(
            np.array(state.known[: state.computed], np.int32),
            min(state.computed, len(state.prompt_T)),
            state.written,
            slot,
            pages,
            state.request.cache_salt,
            state.request.request_id,
            branch,
        )
        for other in superseded(unit, self.kept, self.reach):
            self._evict(other)
        self.kept.add(unit)

    def _make_room(self, slots: int, pages: int, but: KeptPrefix | None = None) -> bool:
        """Evict kept units, the least recently used first, until so much is free; none if that would not be enough."""
        if self.runner.layout.page_tokens and pages > self.pages.free:
            freed = self._freed_by_all(but)
            if pages > self.pages.free + freed:
                return False
        while len(self.slots.free) < slots or pages > self.pages.free:
            unit = self.kept.oldest(but)
            if unit is None:
                return False
            self._evict(unit)
            self.evicted += 1
        return True

    def _freed_by_all(self, but: KeptPrefix | None) -> int:
        users: dict[int, int] = {}
        for unit in self.kept:
            if unit is not but:
                for page in unit.pages:
                    users[page] = users.get(page, 0) + 1
        return sum(self.pages.users(page) == count for page, count in users.items())

    def _evict(self, unit: KeptPrefix) -> None:
        self.kept.remove(unit)
        self._free(unit.slot, unit.pages)

    def _free(self, slot: int, pages: list[int]) -> None:
        self.runner.release(slot)
        self.slots.give_back(slot)
        self.pages.drop(pages)


def _why(source: SequenceState | KeptPrefix | None, tokens: int, alike: int) -> str:
    if isinstance(source, KeptPrefix):
        return f"{tokens} tokens of {source.request_id} are kept"
    if source is not None:
        return f"{tokens} tokens of {source.request.request_id} are computed"
    if alike >= MIN_SHARED:
        return f"{alike} tokens are known, but the window that ends there is not kept"
    return "nothing that is kept begins like it"
