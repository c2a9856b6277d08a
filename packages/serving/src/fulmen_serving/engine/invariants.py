"""What must hold between any two steps. The tests check it after every step of random workloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fulmen_serving.engine.core import EngineCore


def broken_invariants(core: EngineCore) -> list[str]:
    """Return a sentence for each rule that `core` breaks; an empty list is what it should be."""
    return [*_wrong_slots(core), *_wrong_pages(core), *_wrong_adapters(core), *_wrong_sequences(core)]


def _wrong_slots(core: EngineCore) -> list[str]:
    faults: list[str] = []
    running = [state.slot for state in core.running]
    kept = [unit.slot for unit in core.cache.kept]
    taken = [slot for slot in [*running, *kept] if slot is not None]
    if None in running:
        faults.append("a running sequence has no slot")
    if len(set(taken)) != len(taken):
        faults.append(f"two sequences share a slot: {running} run, {kept} are kept")
    if sorted([*core.cache.slots.free, *taken]) != list(range(core.runner.layout.slots)):
        faults.append(f"slots are lost or invented: free {core.cache.slots.free}, running {running}, kept {kept}")
    return faults


def _wrong_pages(core: EngineCore) -> list[str]:
    faults: list[str] = []
    layout, pool = core.runner.layout, core.cache.pages
    # what each holder has computed in each of its pages
    contents: dict[int, set[tuple[str, tuple[int, ...]]]] = {}
    users: Counter[int] = Counter()
    held: list[tuple[str, Sequence[int], Sequence[int], str]] = [
        *((s.request.request_id, s.pages, s.known[: s.computed], s.request.cache_salt) for s in core.running),
        *((unit.request_id, unit.pages, unit.tokens_T.tolist(), unit.salt) for unit in core.cache.kept),
    ]
    for name, pages, computed, salt in held:
        if len(pages) < layout.pages_for(len(computed)):
            faults.append(f"{name} has {len(pages)} pages for {len(computed)} computed tokens")
        users.update(pages)
        for index, page in enumerate(pages):
            here = computed[index * layout.page_tokens : (index + 1) * layout.page_tokens]
            contents.setdefault(page, set()).add((salt, tuple(here)))
    for page in range(layout.pages):
        if pool.users(page) != users[page]:
            faults.append(f"page {page} counts {pool.users(page)} users and has {users[page]}")
        if users[page] > 1 and (len(contents[page]) > 1 or len(next(iter(contents[page]))[1]) < layout.page_tokens):
            faults.append(f"page {page} is shared and not whole, or not the same to all: {contents[page]}")
    if pool.free != sum(users[page] == 0 for page in range(layout.pages)):
        faults.append(f"{pool.free} pages count as free, and {sum(users[p] == 0 for p in range(layout.pages))} are")
    return faults


def _wrong_adapters(core: EngineCore) -> list[str]:
    faults: list[str] = []
    users = core.adapters.users
    running = Counter(state.adapter for state in core.running if state.request.adapter is not None)
    if len(users) > core.runner.limits.adapters:
        faults.append(f"{len(users)} adapters are loaded where {core.runner.limits.adapters} may be")
    if Counter(users) != running:  # counters that differ in zeros are equal
        faults.append(f"adapters count {users} users and have {dict(running)}")
    for state in core.waiting:
        if state.adapter:
            faults.append(f"{state.request.request_id} waits with adapter {state.adapter}")
    for state in core.running:
        if (state.adapter == 0) != (state.request.adapter is None):
            faults.append(f"{state.request.request_id} runs with adapter {state.adapter}")
    return faults


def _wrong_sequences(core: EngineCore) -> list[str]:
    faults: list[str] = []
    limits = core.runner.limits
    for state in core.waiting:
        if state.slot is not None or state.computed or state.pages:
            faults.append(
                f"{state.request.request_id} waits with slot {state.slot}, pages {state.pages} and {state.computed} "
                "computed tokens"
            )
    for state in core.running:
        name, params = state.request.request_id, state.request.params
        if not 0 <= state.computed < len(state.known):
            faults.append(f"{name} has computed {state.computed} of {len(state.known)} known tokens")
        if state.generated >= params.max_tokens:
            faults.append(f"{name} runs on after {state.generated} of {params.max_tokens} tokens")
        if len(state.known) > limits.max_context:
            faults.append(f"{name} knows {len(state.known)} tokens in a context of {limits.max_context}")
    for states in (core.waiting, core.running):
        if states != sorted(states, key=lambda state: state.rank):
            faults.append(f"out of order: {[state.rank for state in states]}")
    ids = [state.request.request_id for state in [*core.waiting, *core.running]]
    if len(set(ids)) != len(ids):
        faults.append(f"a request is here twice: {ids}")
    return faults
