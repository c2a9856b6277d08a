"""Where the cascade's gate stands: what the linear model finds plainly harmless, the Transformer is not asked about.

The margins are those of texts that neither was trained on, unsafe and safe ones: of the linear model alone, and of
both together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_safety.evaluation import metrics

Sides = tuple[NDArray[np.float64], NDArray[np.float64]]

#: The false alarms at which a text counts as found, and the share of what is found that a gate may lose unless told.
_FALSE_ALARMS = 0.05
LOST = 0.003

#: The lowest margin of some hundred texts is not the lowest of all: the gate stands this much below it.
_CLEARANCE = 0.3


def gate_of(linear: Sides, both: Sides, lost: float = LOST) -> float | None:
    """Return the linear margin below which a text is not shown to the Transformer: `_CLEARANCE` below that which all
    but `lost` of the unsafe texts reach that both find at 5 % false alarms, rounded down to a tenth. None if nothing is
    found.
    """
    found = np.sort(_found(linear, both))
    if not len(found):
        return None
    return float(np.floor(10 * (found[int(lost * len(found))] - _CLEARANCE)) / 10)


def passing(linear: Sides, both: Sides, gate: float) -> dict[str, Any]:
    """Return for the card what a gate loses of the texts found without it, and which share of either label passes."""
    found = _found(linear, both)
    return {
        "found": len(found),
        "lost_of_found": int((found < gate).sum()),
        "unsafe_that_pass": round(float((linear[0] >= gate).mean()), 4),
        "safe_that_pass": round(float((linear[1] >= gate).mean()), 4),
    }


def _found(linear: Sides, both: Sides) -> NDArray[np.float64]:
    """Return the linear margins of the unsafe texts that both find."""
    return linear[0][both[0] > metrics.threshold_at_fpr(both[1], _FALSE_ALARMS)]
