"""What all claims share: the plugin itself is light and sound, and nothing is silently left out.

A claim is a test method of a conformance class; the first line of its docstring is what the scorecard says. An author
subclasses the class, gives the fixture `subject`, and may mark a claim that does not hold yet with
``xfail(reason=...)``: no other way of leaving one out passes `test_no_claim_is_left_out`.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import pytest

from fulmen_testing.plugin_process import IMPORT_CPU_SECONDS, examine
from fulmen_testing.subject import Kind, Subject

Made = TypeVar("Made")
#: pytest's fixture `record_property`: a figure under the name ``measured`` stands on the scorecard.
Record = Callable[[str, object], None]
_SHARED = pytest.StashKey[dict[str, Any]]()


def claims_of(suite: type) -> dict[str, object]:
    """Return the claims of a conformance class, by name: every test method that it has."""
    return {name: value for name, value in inspect.getmembers(suite, inspect.isfunction) if name.startswith("test_")}


def left_out(suite: type, standard: type) -> list[str]:
    """Return the claims of `standard` that `suite` deletes or replaces without an ``xfail`` that gives a reason."""
    given = {name: inspect.getattr_static(suite, name, None) for name in claims_of(standard)}
    return sorted(
        name for name, value in given.items() if value is not claims_of(standard)[name] and not _excused(value)
    )


def _excused(claim: object) -> bool:
    marks = getattr(claim, "pytestmark", [])
    return any(mark.name == "xfail" and str(mark.kwargs.get("reason", "")).strip() for mark in marks)


def unavailable(subject: Subject, reason: str) -> NoReturn:
    """Skip the claim because the subject cannot be had here; fail if FULMEN_REQUIRE says that it must be."""
    if subject.required():
        pytest.fail(f"FULMEN_REQUIRE names {subject.name}, which is unavailable: {reason}", pytrace=False)
    pytest.skip(reason)


def once(request: pytest.FixtureRequest, name: str, make: Callable[[], Made]) -> Made:
    """Make what all claims of a class share when the first of them asks for it. An author's fixture `subject` may so
    have the default scope."""
    owner = request.node.getparent(pytest.Class)
    assert owner is not None, "claims are methods of a class"
    shared = owner.stash.setdefault(_SHARED, {})
    if name not in shared:
        shared[name] = make()
    made: Made = shared[name]
    return made


class PluginClaims:
    """The plugin module: what every command of a user pays for, and what `fulmen doctor` looks at."""

    kind: Kind
    #: The class whose claims a subclass must keep.
    standard: type

    @pytest.fixture
    def subject(self) -> Subject:
        """The one fixture that an author gives: what is to be tested."""
        pytest.fail("give the fixture `subject`: `return Subject.of_module(NAME, PLUGIN_MODULE)`", pytrace=False)

    @pytest.fixture
    def seed(self, request: pytest.FixtureRequest) -> int:
        """Of everything random in the claims: drawn afresh for a class, or ``--seed`` of `fulmen conform`. Give a
        fixed one to repeat a run."""
        given: int | None = getattr(request.config, "fulmen_seed", None)
        chosen = once(request, "seed", lambda: secrets.randbelow(1 << 32)) if given is None else given
        request.node.add_report_section("setup", "seed", f"seed {chosen}")
        return chosen

    def test_the_plugin_loads_and_all_it_promises_is_there(self, subject: Subject) -> None:
        """The plugin loads in a process of its own, and every path it names leads somewhere"""
        (standing,) = examine(subject.entry(self.kind))["standing"]
        assert standing["state"] in ("active", "unavailable"), standing["reason"]

    def test_the_plugin_module_is_light(self, subject: Subject) -> None:
        """Importing the plugin module imports no library and costs next to nothing"""
        report = examine(subject.entry(self.kind))
        assert report["heavy"] == []
        assert report["cpu_seconds"] < IMPORT_CPU_SECONDS

    def test_no_claim_is_left_out(self) -> None:
        """No standard claim is deleted or replaced, unless xfail gives a reason"""
        assert left_out(type(self), self.standard) == []
