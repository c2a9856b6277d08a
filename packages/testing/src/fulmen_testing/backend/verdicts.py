"""When a result is right: within what its dtype allows, token by token, where no router tossed a coin."""

from __future__ import annotations

import numpy as np

from fulmen_testing.backend.bench import COARSE_TIE, TOLERANCE, WITHIN, Bench, Model
from fulmen_testing.player import Judgement, Player, Sequence, judge
from fulmen_testing.reference import ROUTING_TIE


def assert_right(
    bench: Bench, model: Model, player: Player, what: str = "", sequences: list[Sequence] | None = None
) -> Judgement:
    """Hold what was played against the whole forward pass in float64, within what the dtype allows."""
    precision = what or bench.dtype
    tie = ROUTING_TIE if precision == "float32" else COARSE_TIE
    judgement = judge(model.reference(tie), player.played if sequences is None else sequences)
    assert judgement.judged > 0, f"nothing could be judged: {judgement}; {model.label}"
    tolerance = TOLERANCE[precision]
    right = float(np.mean([error <= tolerance for error in judgement.errors]))
    enough = 1.0 if precision == "float32" else WITHIN
    assert right >= enough, (
        f"{1 - right:.1%} of the results differ from float64 by more than {tolerance} of the logits' spread, "
        f"at most {max(judgement.errors):.2e}; {judgement}; {model.label}"
    )
    return judgement
