"""What every backend must meet: `BackendConformance`, the claims of the modules beside this one in one class.

In: a `Subject`. Out: pytest tests. May import: fulmen_core with its extra ``model``, and the kit.
"""

from __future__ import annotations

from pkgutil import iter_modules

import pytest

_claims = [f"{__name__}.{module.name}" for module in iter_modules(__path__)]
# The asserts of claims explain themselves, though they stand in no test file; so it is said before they are imported.
pytest.register_assert_rewrite(*_claims, "fulmen_testing.claims", "fulmen_testing.player")

from fulmen_testing.backend.conformance import BackendConformance  # noqa: E402
from fulmen_testing.subject import Subject  # noqa: E402

__all__ = ["BackendConformance", "Subject"]
