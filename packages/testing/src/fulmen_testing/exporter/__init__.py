"""What tests of an exporter share: a model and its artefact, and what must hold of the artefact whoever wrote it.

In: an exporter, or a test class with fixtures. Out: an artefact, or a pytest run. May import: fulmen_core with its
extra ``model``, and the kit.
"""

from __future__ import annotations

import pytest

# before they are imported: a failed assertion then says what it compared
pytest.register_assert_rewrite("fulmen_testing.exporter.artefacts")
