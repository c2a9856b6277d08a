"""What every RAISE detector must meet: `DetectorConformance`, the claims of the modules beside this one in one class.

In: a `Subject`. Out: pytest tests. May import: fulmen_core, fulmen_safety, and the kit; no torch and no NumPy.
"""

from __future__ import annotations

from pkgutil import iter_modules

import pytest

_claims = [f"{__name__}.{module.name}" for module in iter_modules(__path__)]
# The asserts of claims explain themselves, though they stand in no test file; so it is said before they are imported.
pytest.register_assert_rewrite(*_claims, "fulmen_testing.claims")

from fulmen_testing.detector.conformance import DetectorConformance  # noqa: E402
from fulmen_testing.subject import Subject  # noqa: E402

__all__ = ["DetectorConformance", "Subject"]
