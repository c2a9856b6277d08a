"""Every backend and every detector of this repository meets its contract: all claims of the conformance kit.

What is tested is read from the members' entry points, so that a new one is tested on the day it appears. A fault that
is known and too large for a change in passing stands in `KNOWN`, with its reason; it must go when the claim holds.
"""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.plugin_loader import load_entry
from fulmen_core.plugin_records import Entry
from fulmen_testing.backend import BackendConformance, Subject
from fulmen_testing.claims import claims_of, left_out
from fulmen_testing.detector import DetectorConformance
from fulmen_testing.subject import GROUPS, Kind

ROOT = Path(__file__).parents[1]
STANDARDS: dict[Kind, type] = {"backend": BackendConformance, "detector": DetectorConformance}

#: Faults that are known: kind and name, claim, reason.
KNOWN: dict[tuple[Kind, str], dict[str, str]] = {}

#: Settings without which a detector cannot be made.
SETTINGS: dict[str, dict[str, object]] = {
    "terms": {"lists": [{"category": "ip_secrets", "terms": ["project falcon", "猎鹰计划", "call 1"]}]}
}

#: Detectors that need a server, example files or a trained model: the tests of their plugins hold them against the kit.
ELSEWHERE: dict[str, str] = {
    "semantic": "plugins/raise-semantic/tests/test_semantic_conformance.py",
    "judge": "plugins/raise-judge/tests/test_judge_conformance.py",
    "judge-answer": "plugins/raise-judge/tests/test_judge_conformance.py",
    "probe": "plugins/raise-probe/tests/test_probe_conformance.py",
}


def declared(kind: Kind) -> dict[str, str]:
    """What the members declare of a kind: the name of each, and the module that brings it."""
    group, hook = GROUPS[kind]
    found = {}
    for project in sorted(ROOT.glob("*/*/pyproject.toml")):
        if project.parts[-3] not in ("packages", "backends", "plugins"):
            continue
        points = tomllib.loads(project.read_text())["project"].get("entry-points", {}).get(group, {})
        for name, module in points.items():
            loaded = load_entry(Entry(name, group, module, project.parent.name, ""))
            found |= {info.name: module for info in loaded.describe(hook)}
    return found


def excused(kind: Kind, claim: str, reason: str) -> Any:
    """The claim as it is, expected to fail."""
    original = claims_of(STANDARDS[kind])[claim]

    def override(self: object, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)  # type: ignore[operator]

    override.__doc__ = original.__doc__
    override.__signature__ = inspect.signature(original)  # type: ignore[attr-defined, arg-type]
    return pytest.mark.xfail(reason=reason)(override)


def suite(kind: Kind, name: str, module: str) -> type:
    """A conformance class for one of them."""

    def subject(self: object) -> Subject:
        return Subject.of_module(name, module, settings=SETTINGS.get(name))

    body = {"subject": pytest.fixture(subject), "__module__": __name__}
    overrides = {claim: excused(kind, claim, why) for claim, why in KNOWN.get((kind, name), {}).items()}
    return type(f"Test_{kind}_{name}", (STANDARDS[kind],), body | overrides)


SUITES = {
    (kind, name): suite(kind, name, module)
    for kind in STANDARDS
    for name, module in declared(kind).items()
    if name not in ELSEWHERE
}
globals().update({made.__name__: made for made in SUITES.values()})


def test_every_backend_and_detector_is_held_against_all_claims() -> None:
    assert {name for kind, name in SUITES if kind == "backend"} >= {"cpu", "onnxruntime"}
    assert {name for kind, name in SUITES if kind == "detector"} >= {"pii", "attack"}
    assert {key: missing for key, made in SUITES.items() if (missing := left_out(made, STANDARDS[key[0]]))} == {}


def test_detectors_that_need_more_than_settings_are_held_against_all_claims_by_their_plugins() -> None:
    assert set(ELSEWHERE) <= set(declared("detector"))
    for name, path in ELSEWHERE.items():
        source = (ROOT / path).read_text("utf-8")
        assert f'Subject.of_module("{name}"' in source
        assert "(DetectorConformance)" in source
        assert "def test_" not in source, f"{path} changes a claim"


def test_what_is_known_is_about_claims_that_there_are() -> None:
    for (kind, name), claims in KNOWN.items():
        assert (kind, name) in SUITES
        assert set(claims) <= set(claims_of(STANDARDS[kind]))
