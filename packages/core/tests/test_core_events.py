"""Events reach whoever is in use or only listens; a listener that raises hurts nobody else."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fulmen_core.errors import PluginError
from fulmen_core.registry import EVENT_FAULTS, Registry

LISTENER = """
from fulmen_core.hooks import hookimpl

heard = []

@hookimpl
def fulmen_stage_start(run, stage):
    {action}
"""

NOTE = "heard.append(stage)"


def listener(action: str = NOTE) -> str:
    return LISTENER.format(action=action)


def module_of(name: str) -> ModuleType:
    import sys

    return sys.modules[name]


def announce(registry: Registry, stage: str) -> None:
    registry.announce("fulmen_stage_start", run=Path("runs/x"), stage=stage)


def test_a_listener_is_loaded_at_the_first_event_and_hears_every_one(site: Any) -> None:
    site.install("acme-ears", {"fulmen.events.v1": {"ears": "acme_ears"}}, {"acme_ears": listener()})
    registry = Registry.discover()
    assert not site.imported()
    announce(registry, "initial")
    announce(registry, "mid")
    assert module_of("acme_ears").heard == ["initial", "mid"]


def test_a_plugin_of_another_group_hears_events_only_once_it_is_in_use(site: Any) -> None:
    source = (
        listener()
        + """
from fulmen_core.descriptors import VerifierInfo

@hookimpl
def fulmen_verifiers():
    return [VerifierInfo("same", "", lambda *_: 1.0)]
"""
    )
    points = {"fulmen.training.v1": {"same": "acme_both"}}
    site.install("acme-both", points, {"acme_both": source})
    registry = Registry.discover()
    announce(registry, "before")
    assert not site.imported()
    registry.verifier("same")
    announce(registry, "after")
    assert module_of("acme_both").heard == ["after"]


def test_a_module_behind_two_entry_points_hears_an_event_once(site: Any) -> None:
    site.install(
        "acme-ears", {"fulmen.events.v1": {"left": "acme_ears", "right": "acme_ears"}}, {"acme_ears": listener()}
    )
    announce(Registry.discover(), "initial")
    assert module_of("acme_ears").heard == ["initial"]


def test_a_listener_that_raises_is_named_in_the_log_and_silenced_after_three_faults(
    site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    site.install(
        "acme-bad",
        {"fulmen.events.v1": {"bad": "acme_bad"}},
        {"acme_bad": listener("heard.append(stage); raise KeyError(stage)")},
    )
    site.install("acme-ears", {"fulmen.events.v1": {"ears": "acme_ears"}}, {"acme_ears": listener()})
    registry = Registry.discover()
    stages = [f"stage {number}" for number in range(EVENT_FAULTS + 2)]
    for stage in stages:
        announce(registry, stage)
    assert module_of("acme_bad").heard == stages[:EVENT_FAULTS]
    assert module_of("acme_ears").heard == stages
    assert "fulmen_stage_start of the plugin bad (acme-bad 1.2.3) raised KeyError: 'stage 0'" in caplog.text
    assert "the plugin bad (acme-bad 1.2.3) hears no more events after 3 faults" in caplog.text


def test_a_listener_that_does_not_load_stops_nobody(site: Any) -> None:
    site.install("acme-bad", {"fulmen.events.v1": {"bad": "acme_bad"}}, {"acme_bad": "1 / 0"})
    site.install("acme-ears", {"fulmen.events.v1": {"ears": "acme_ears"}}, {"acme_ears": listener()})
    registry = Registry.discover()
    announce(registry, "initial")
    assert module_of("acme_ears").heard == ["initial"]
    assert {record.name: record.state for record in registry.records()} == {"bad": "failed", "ears": "active"}


def test_strict_mode_raises_what_a_listener_raised(site: Any) -> None:
    site.install("acme-bad", {"fulmen.events.v1": {"bad": "acme_bad"}}, {"acme_bad": listener("raise KeyError(stage)")})
    with pytest.raises(PluginError, match=r"the plugin bad \(acme-bad 1\.2\.3\) raised KeyError"):
        announce(Registry.discover(strict=True), "initial")


def test_an_interrupt_in_a_listener_comes_through(site: Any) -> None:
    site.install(
        "acme-bad", {"fulmen.events.v1": {"bad": "acme_bad"}}, {"acme_bad": listener("raise KeyboardInterrupt")}
    )
    with pytest.raises(KeyboardInterrupt):
        announce(Registry.discover(), "initial")


def test_only_events_can_be_announced(site: Any) -> None:
    with pytest.raises(
        ValueError, match="fulmen_verifiers is no event; events: fulmen_checkpoint_saved, fulmen_export_done"
    ):
        Registry.discover().announce("fulmen_verifiers")


def test_a_blocked_listener_hears_nothing(site: Any) -> None:
    site.install("acme-ears", {"fulmen.events.v1": {"ears": "acme_ears"}}, {"acme_ears": listener()})
    announce(Registry.discover(disabled=["ears"]), "initial")
    assert not site.imported()
