"""The scorecard: every claim with its verdict, the reason, and the time it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Verdict:
    """What became of one claim."""

    claim: str  # the test's name, as pytest knows it
    title: str  # the sentence
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""  # why it failed or was skipped
    measured: str = ""  # a figure worth knowing
    detail: str = ""  # the traceback of a failure

    def as_json(self) -> dict[str, Any]:
        """The verdict as ``--json`` lists it under its outcome."""
        row = {"claim": self.claim, "title": self.title, "seconds": self.seconds, "reason": self.reason}
        more = {"measured": self.measured, "detail": self.detail}
        return row | {key: value for key, value in more.items() if value}

    def lines(self) -> list[str]:
        """The verdict as a terminal shows it."""
        remark = self.reason or self.measured
        return [f"{self.outcome:<8}{self.seconds:7.2f} s  {self.title}", *([f"{'':19}{remark}"] if remark else [])]


@dataclass
class Scorecard:
    """All verdicts on one subject."""

    kind: str
    name: str
    distribution: str
    version: str
    seed: int
    verdicts: list[Verdict] = field(default_factory=list)

    def of(self, outcome: Outcome) -> list[Verdict]:
        """The verdicts of one outcome, in the order of the claims."""
        return [one for one in self.verdicts if one.outcome == outcome]

    def as_json(self) -> dict[str, Any]:
        """The scorecard as ``--json`` prints it."""
        head = {"kind": self.kind, "name": self.name, "distribution": self.distribution, "version": self.version}
        outcomes: Iterable[Outcome] = ("passed", "failed", "skipped")
        return {**head, "seed": self.seed, **{one: [v.as_json() for v in self.of(one)] for one in outcomes}}

    def summary(self) -> str:
        """One line: whose it is, and how many of each."""
        counts = ", ".join(f"{len(self.of(outcome))} {outcome}" for outcome in ("passed", "failed", "skipped"))
        seconds = sum(one.seconds for one in self.verdicts)
        origin = f"{self.distribution} {self.version}".strip()
        return f"{self.kind} {self.name} ({origin}): {counts} in {seconds:.1f} s; seed {self.seed}"
