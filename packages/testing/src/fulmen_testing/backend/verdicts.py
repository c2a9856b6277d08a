"""When a result is right: within what its dtype allows, token by token, where no router tossed a coin."""

from __future__ import annotations

import numpy as np

from fulmen_testing.backend.bench import COARSE_TIE, TOLERANCE, WITHIN, Bench, Model
from fulmen_testing.backend.yardstick import rounded
from fulmen_testing.player import Judgement, Player, Sequence, judge
from fulmen_testing.reference import ROUTING_TIE

#: So many times what plain rounding costs: runtimes also round activations, or in other groups.
ROUNDING = 2.5


def assert_as_close_as_rounding(model: Model, player: Player, precision: str) -> None:
    """Hold what was played in fewer bits against what plain rounding to them does to the same tokens."""
    got = judge(model.reference(COARSE_TIE), player.played)
    assert got.judged > 0, f"nothing could be judged: {got}; {model.label}"
    assert np.isfinite(got.worst), f"{got}; {model.label}"
    plain = rounded(model, precision, player.played)
    for share in (50, 95):
        here, there = np.percentile(got.errors, share), np.percentile(plain.errors, share)
        assert here <= ROUNDING * there, (
            f"{share} % of the results differ from float64 by up to {here:.2e} of the logits' spread, and by "
            f"{there:.2e} when the checkpoint is rounded to {precision}; {got}; {model.label}"
        )


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
