"""The doctor tries every plugin in a process of its own: whatever a plugin does there, the report comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fulmen_core.cli import doctor, main
from fulmen_core.cli.plugin_check import Report, check
from fulmen_core.plugin_records import Entry

HEAD = """
from fulmen_core.descriptors import *
from fulmen_core.hooks import hookimpl
"""

BACKEND = (
    HEAD
    + """
@hookimpl
def fulmen_backends():
    return [BackendInfo("acme", "", lambda: {probe}, {load!r})]
"""
)


def examined(site: Any, source: str, group: str = "fulmen.backends.v1", name: str = "acme") -> Report:
    """What the doctor finds out about one module."""
    (site.folder / "acme_plugin.py").write_text(source)
    return doctor.examine([Entry(name, group, "acme_plugin", "acme-dist", "1.2.3")])


@pytest.fixture(autouse=True)
def _visible_to_children(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(site.folder))


def test_a_sound_plugin_is_active(site: Any) -> None:
    report = examined(site, BACKEND.format(probe="Availability(True, devices=('cpu',))", load="json:dumps"))
    assert [one["state"] for one in report.standing] == ["active"]
    assert (report.heavy, report.traceback) == ([], "")


@pytest.mark.parametrize(
    ("source", "state", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "failed", "it killed its process with SIGSEGV"),
        ("import os; os._exit(3)", "failed", "it ended its process with exit code 3"),
        ("raise SystemExit(4)", "failed", "its import raised SystemExit: 4"),
        ("import acme_runtime", "failed", "it needs the module acme_runtime, which is not installed"),
        (BACKEND.format(probe="1 / 0", load="json:dumps"), "failed", "acme: its probe raised ZeroDivisionError"),
        (BACKEND.format(probe="Availability(False, 'no driver')", load="json:dumps"), "unavailable", "acme: no driver"),
        (
            BACKEND.format(probe="Availability(True)", load="acme_gone:make"),
            "failed",
            "acme: there is no module acme_gone",
        ),
        (
            BACKEND.format(probe="Availability(True)", load="json.gone:make"),
            "failed",
            "acme: there is no module json.gone",
        ),
        (
            BACKEND.format(probe="Availability(True)", load="json"),
            "failed",
            "acme: 'json' is not of the form module:attribute",
        ),
        ("print('noise on stdout')\n" + BACKEND.format(probe="Availability(True)", load="json:dumps"), "active", ""),
    ],
)
def test_whatever_a_plugin_does_its_standing_comes_out(site: Any, source: str, state: str, reason: str) -> None:
    (standing,) = examined(site, source).standing
    assert standing["state"] == state
    assert standing["reason"].startswith(reason)


def test_an_import_that_never_ends_is_given_up(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PATIENCE", 1)
    (standing,) = examined(site, "import time; time.sleep(30)").standing
    assert standing["reason"] == "it did not finish within 1 s"


def test_a_plugin_module_that_imports_something_heavy_is_told_on(site: Any) -> None:
    report = examined(site, "import numpy\n" + BACKEND.format(probe="Availability(True)", load="json:dumps"))
    assert report.heavy == ["numpy"]
    assert report.cpu_seconds > 0


def test_a_verb_is_judged_by_its_own_entry_point_alone(site: Any) -> None:
    source = (
        HEAD
        + """
@hookimpl
def fulmen_commands():
    return [CommandInfo("fly", "", "json:dumps"), CommandInfo("swim", "", "acme_gone:run")]
"""
    )
    assert examined(site, source, "fulmen.commands.v1", "fly").standing[0]["state"] == "active"
    assert examined(site, source, "fulmen.commands.v1", "swim").standing[0]["state"] == "failed"


def test_a_check_in_this_process_gives_the_traceback(site: Any) -> None:
    (site.folder / "acme_plugin.py").write_text("1 / 0")
    report = check([Entry("acme", "fulmen.backends.v1", "acme_plugin", "acme-dist", "1.2.3")])
    assert "ZeroDivisionError: division by zero" in report.traceback


def test_the_report_lists_every_plugin_names_the_remedy_and_gives_an_exit_code(site: Any, capsys: Any) -> None:
    site.install("acme-broken", {"fulmen.backends.v1": {"acme-broken": "acme_broken"}}, {"acme_broken": "1 / 0"})
    site.install("acme-blocked", {"fulmen.backends.v1": {"acme-blocked": "acme_blocked"}}, {"acme_blocked": "1 / 0"})
    site.install("acme-old", {"fulmen.backends.v0": {"acme-old": "acme_old"}})
    words = ["--no-plugin", "acme-blocked", "doctor"]
    assert main([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in found["plugins"]}
    assert rows["acme-broken"]["state"] == "failed"
    assert rows["acme-broken"]["reason"] == "its import raised ZeroDivisionError: division by zero"
    assert rows["acme-broken"]["remedy"] == "pip install --upgrade acme-broken"
    assert rows["acme-blocked"]["state"] == "blocked"
    assert rows["acme-old"]["reason"] == "it is made for hook generation v0, this is v1"
    assert set(found["versions"]) >= {"fulmen-core"}
    assert not site.imported()
    assert main([*words, "--traceback"]) == 1
    out, err = capsys.readouterr()
    assert "backend acme-broken (acme-broken): pip install --upgrade acme-broken" in out
    assert "ZeroDivisionError: division by zero" in err


def test_a_machine_where_all_is_well_gets_exit_code_0(site: Any, capsys: Any) -> None:
    source = BACKEND.format(probe="Availability(False, 'no driver')", load="json:dumps")
    site.install("acme-absent", {"fulmen.backends.v1": {"acme": "acme_absent"}}, {"acme_absent": source})
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("Every plugin loads.\n")


def test_members_of_different_versions_are_pointed_out(site: Any, capsys: Any) -> None:
    site.install("fulmen-acme", {}, version="99.0")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "Versions differ: " in out
    assert "fulmen-acme 99.0" in out
