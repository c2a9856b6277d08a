"""What every backend must meet: `BackendConformance`, the claims of the modules beside this one in one class.

In: a `Subject`. Out: pytest tests. May import: fulmen_core with its extra ``model``, and the kit.
"""

from __future__ import annotations

from fulmen_testing.backend.conformance import BackendConformance
from fulmen_testing.subject import Subject

__all__ = ["BackendConformance", "Subject"]
