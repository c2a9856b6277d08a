"""What every RAISE detector must meet: `DetectorConformance`, the claims of the modules beside this one in one class.

In: a `Subject`. Out: pytest tests. May import: fulmen_core, fulmen_safety, and the kit; no torch and no NumPy.
"""

from __future__ import annotations

from fulmen_testing.detector.conformance import DetectorConformance
from fulmen_testing.subject import Subject

__all__ = ["DetectorConformance", "Subject"]
