"""The claims of a backend in one class."""

from __future__ import annotations

from fulmen_testing.backend.adapting import AdapterClaims
from fulmen_testing.backend.caching import CacheClaims
from fulmen_testing.backend.faults import FaultClaims
from fulmen_testing.backend.honesty import HonestyClaims
from fulmen_testing.backend.parity import ParityClaims
from fulmen_testing.backend.precision import PrecisionClaims
from fulmen_testing.backend.training import TrainingClaims


class BackendConformance(
    HonestyClaims, ParityClaims, CacheClaims, PrecisionClaims, FaultClaims, AdapterClaims, TrainingClaims
):
    """Everything that a backend must meet. Subclass it as ``TestNAME`` and give the fixture `subject`."""


BackendConformance.standard = BackendConformance
