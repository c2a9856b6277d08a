"""The claims of a detector in one class."""

from __future__ import annotations

from fulmen_testing.detector.contract import ContractClaims
from fulmen_testing.detector.guarding import GuardClaims


class DetectorConformance(ContractClaims, GuardClaims):
    """Everything that a detector must meet. Subclass it as ``TestNAME`` and give the fixture `subject`."""


DetectorConformance.standard = DetectorConformance
