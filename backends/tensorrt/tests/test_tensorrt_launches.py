"""How a step is divided: every token once and in order, no ring crossed, no run larger than the engines take."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_backend_tensorrt.capacities import Capacities
from fulmen_backend_tensorrt.launches import plan
from fulmen_core.runner import SequenceStep

CONTEXT = 50

steps = st.dictionaries(
    st.integers(0, 11), st.tuples(st.integers(0, CONTEXT - 1), st.integers(1, 40)), min_size=1, max_size=12
)


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(1, 12), st.integers(1, 20), st.one_of(st.none(), st.integers(1, CONTEXT + 1)), st.data())
def test_every_token_is_computed_once_and_its_result_is_the_steps(
    asked: dict[int, tuple[int, int]], rows: int, chunk: int, window: int | None, data: st.DataObject
) -> None:
    batch = [
        SequenceStep(slot, start, list(range(1000 * slot, 1000 * slot + min(count, CONTEXT - start))))
        for slot, (start, count) in asked.items()
    ]
    lengths = [data.draw(st.integers(0, CONTEXT)) for _ in range(12)]
    for step in batch:
        lengths[step.slot] = step.start
    capacities = Capacities(CONTEXT + 1, window)
    computed: dict[int, list[tuple[int, int]]] = {step.slot: [] for step in batch}
    answered: list[int] = []
    for launch in plan(batch, lengths, capacities, rows, chunk):
        count, tokens = launch.ids_BT.shape
        assert (count <= rows and tokens == 1) if launch.phase == "decode" else (count == 1 and tokens <= chunk)
        wanted = {row for row, _ in launch.results}
        answered += [place for _, place in launch.results]
        for row in range(count):
            slot, positions = launch.first + row, launch.positions_BT[row].tolist()
            assert 0 <= positions[0] <= positions[-1] < capacities.full
            if window is not None:
                assert positions[0] % window + tokens <= window
            if row in wanted or launch.phase == "prefill":
                computed[slot] += zip(positions, launch.ids_BT[row].tolist(), strict=True)
            else:  # an idle row writes behind its sequence
                assert positions == [lengths[slot]]
    assert sorted(answered) == list(range(len(batch)))
    for step in batch:
        places = range(step.start, step.start + len(step.token_ids))
        assert computed[step.slot] == list(zip(places, step.token_ids, strict=True))


def test_sequences_side_by_side_decode_in_one_run() -> None:
    batch = [SequenceStep(slot, 5, [slot]) for slot in (3, 1, 2)]
    [launch] = plan(batch, [5] * 4, Capacities(17, 8), rows=4, chunk=8)
    assert (launch.first, launch.ids_BT[:, 0].tolist()) == (1, [1, 2, 3])
