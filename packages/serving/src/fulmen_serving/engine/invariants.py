"""What must hold between any two steps. The tests check it after every step of random workloads."""

from __future__ import annotations

from fulmen_serving.engine.core import EngineCore


def broken_invariants(core: EngineCore) -> list[str]:
    """Return a sentence for each rule that `core` breaks; an empty list is what it should be."""
    limits = core.runner.limits
    faults: list[str] = []
    taken = [state.slot for state in core.running]
    if None in taken:
        faults.append("a running sequence has no slot")
    if len(set(taken)) != len(taken):
        faults.append(f"two sequences share a slot: {taken}")
    if sorted([*core.slots.free, *(slot for slot in taken if slot is not None)]) != list(range(limits.max_sequences)):
        faults.append(f"slots are lost or invented: free {core.slots.free}, taken {taken}")
    for state in core.waiting:
        if state.slot is not None or state.computed:
            faults.append(
                f"{state.request.request_id} waits with slot {state.slot} and {state.computed} computed tokens"
            )
    for state in core.running:
        name, params = state.request.request_id, state.request.params
        if not 0 <= state.computed < len(state.known):
            faults.append(f"{name} has computed {state.computed} of {len(state.known)} known tokens")
        if state.generated > len(state.request.generated) and state.gap != 1:
            faults.append(f"{name} decodes with a gap of {state.gap}")
        if state.generated >= params.max_tokens:
            faults.append(f"{name} runs on after {state.generated} of {params.max_tokens} tokens")
        if len(state.known) > limits.max_context:
            faults.append(f"{name} knows {len(state.known)} tokens in a context of {limits.max_context}")
    ids = [state.request.request_id for state in [*core.waiting, *core.running]]
    if len(set(ids)) != len(ids):
        faults.append(f"a request is here twice: {ids}")
    return faults
