"""Policies and detectors that the tests of RAISE share: real ones, small enough to reason about."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fulmen_core.registry import Registry
from fulmen_safety import DetectorInfo, hookimpl
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.policy import make_policy

#: A policy in which every action of every phase is taken by some term.
POLICY: dict[str, Any] = {
    "name": "test",
    "version": "7",
    "taxonomy": "1.1",
    "failure": {"en": "cannot check", "zh": "无法检查"},
    "detectors": [
        {
            "name": "terms",
            "settings": {
                "lists": [
                    {"category": "privacy_pii", "label": "name", "terms": ["Ada Lovelace", "Ada", "王小明", "x7"]},
                    {"category": "hate_discrimination", "label": "slur", "terms": ["grumble goose", "goose egg"]},
                    {"category": "weapons_cbrne", "label": "recipe", "terms": ["red mercury", "红汞"]},
                    {"category": "specialized_advice", "label": "dose", "terms": ["nine pills"], "score": 0.6},
                ]
            },
        }
    ],
    "categories": {
        "default": {"threshold": 0.5, "corpus": "keep", "reward": 0.2, "input": "allow", "output": "allow"},
        "privacy_pii": {"threshold": 0.5, "corpus": "redact", "reward": 0.4, "input": "rewrite", "output": "redact"},
        "hate_discrimination": {
            "threshold": 0.5,
            "corpus": "drop",
            "reward": 1.0,
            "input": "block",
            "output": "replace",
            "message": {"en": "Let us stay kind.", "zh": "请友善。"},
        },
        "weapons_cbrne": {
            "threshold": 0.5,
            "corpus": "drop",
            "reward": 1.0,
            "input": "block",
            "output": "stop",
            "message": {"en": "I cannot help with that."},
        },
    },
}


@pytest.fixture
def policy_table() -> dict[str, Any]:
    """A policy's table, the test's own to change."""
    return copy.deepcopy(POLICY)


@pytest.fixture(scope="session")
def guard() -> RaiseGuard:
    """The guard of `POLICY`."""
    return RaiseGuard(make_policy(POLICY, where="test policy", folder=Path()), Registry.of("fulmen_safety.plugin"))


@pytest.fixture
def guard_with(policy_table: dict[str, Any]) -> Callable[..., RaiseGuard]:
    """Make a guard whose policy names `detector`, made of one object, after or instead of the terms."""

    def make(
        detector: object, *, entry: Mapping[str, Any] | None = None, alone: bool = False, **changes: Any
    ) -> RaiseGuard:
        module = ModuleType("probe_plugin")

        @hookimpl
        def fulmen_raise_detectors() -> list[DetectorInfo]:
            phases = ("corpus", "reward", "input", "output")
            return [
                DetectorInfo("probe", "a test's own", phases, ("privacy_pii",), ("en",), "rules", lambda _: detector)
            ]

        module.fulmen_raise_detectors = fulmen_raise_detectors  # type: ignore[attr-defined]
        table = {**policy_table, **changes}
        before = [] if alone else table["detectors"]
        table["detectors"] = [*before, {"name": "probe", **(entry or {})}]
        registry = Registry.of("fulmen_safety.plugin", module)
        return RaiseGuard(make_policy(table, where="test policy", folder=Path()), registry)

    return make
