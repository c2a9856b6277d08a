"""Broken plugins in real processes: each is named, with whose it is, the cause and the remedy, and stops no one else.

One installation holds them all beside a sound one. What is imported leaves a mark: so it is seen that nothing was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import Site

VERIFIERS = "fulmen.training.v1"

HEAD = """
import os, pathlib
(pathlib.Path(os.environ["ACME_MARKS"]) / __name__).touch()
from fulmen_core.descriptors import *
from fulmen_core.hooks import hookimpl
"""

SOUND = HEAD + "@hookimpl\ndef fulmen_verifiers(): return [VerifierInfo('{name}', '', lambda answer, item: 1.0)]\n"


@dataclass(frozen=True)
class Broken:
    """A plugin and what is said about it."""

    source: str | None  # None: its module is not there
    reason: str  # of the doctor
    state: str = "failed"
    group: str = VERIFIERS
    value: str = ""  # of the entry point; "": its module
    remedy: str = "pip install --upgrade"
    known: bool = False  # its metadata alone show it


PLUGINS = {
    "raises": Broken("raise ValueError('no such device')", "its import raised ValueError: no such device"),
    "exits": Broken("import sys; sys.exit('enough')", "its import raised SystemExit: enough"),
    "kills": Broken("import os; os._exit(9)", "it ended its process with exit code 9"),
    "crashes": Broken("import os; os.abort()", "it killed its process with SIGABRT"),
    "signature": Broken(
        "@hookimpl\ndef fulmen_verifiers(settings): return []",
        "its fulmen_verifiers takes settings; the hook's arguments are: none",
    ),
    "misspelt": Broken(
        "@hookimpl\ndef fulmen_verifier(): return []",
        "it implements fulmen_verifier, which is no hook; did you mean fulmen_verifiers?",
    ),
    "unmarked": Broken("def fulmen_verifiers(): return []", "it implements no hook"),
    "stranger": Broken(
        "import pluggy\nmark = pluggy.HookimplMarker('pytest')\n@mark\ndef fulmen_verifiers(): return []",
        "it implements no hook",
    ),
    "syntax": Broken("def (:", "its import raised SyntaxError"),
    "needs": Broken("import acme_runtime", "it needs the module acme_runtime, which is not installed"),
    "lies": Broken(
        "@hookimpl\ndef fulmen_verifiers(): return ['checks']",
        "fulmen_verifiers returned str, not a list of VerifierInfo",
    ),
    "nowhere": Broken(
        "@hookimpl\ndef fulmen_verifiers(): return [VerifierInfo('nowhere', '', 'acme_absent:score')]",
        "nowhere: there is no module acme_absent",
    ),
    "gone": Broken(None, "its module acme_gone is not there", remedy="pip install --force-reinstall --no-deps"),
    "attribute": Broken("", "its import raised AttributeError", value="acme_attribute:plugin"),
    "no-module": Broken(
        "", "its entry point names 'os:system:run', which is no module", value="os:system:run", known=True
    ),
    "shell": Broken("", "it implements no hook", value="os:system"),
    "package": Broken("", "it implements no hook", value="json"),
    "old": Broken("", "it is made for hook generation v0, this is v1", group="fulmen.training.v0", known=True),
    "new": Broken(
        "",
        "it is made for hook generation v2, this is v1",
        group="fulmen.training.v2",
        remedy="pip install --upgrade fulmen-core",
        known=True,
    ),
    "elsewhere": Broken(
        "", "this Fulmen has no entry-point group fulmen.trainings.v1", group="fulmen.trainings.v1", known=True
    ),
    "generate": Broken(
        "", "the verb generate is built in", "conflict", "fulmen.commands.v1", remedy="pip uninstall", known=True
    ),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """An installation with every broken plugin, two that claim one name, a noisy one, a slow one, and a sound one."""
    site = Site(tmp_path_factory.mktemp("site-packages"))
    for name, plugin in PLUGINS.items():
        module = f"acme_{name.replace('-', '_')}"
        modules = {} if plugin.source is None else {module: HEAD + plugin.source}
        site.install(f"acme-{name}", {plugin.group: {name: plugin.value or module}}, modules)
    for maker in ("left", "right"):
        module = f"acme_{maker}"
        site.install(f"acme-{maker}", {VERIFIERS: {"twice": module}}, {module: SOUND.format(name="twice")})
    noisy = NOISE + SOUND.format(name="noisy") + BACKEND
    points = {VERIFIERS: {"noisy": "acme_noisy"}, "fulmen.backends.v1": {"noisy": "acme_noisy"}}
    site.install("acme-noisy", points, {"acme_noisy": noisy})
    slow = "import time; time.sleep(1.5)\n" + SOUND.format(name="slow")
    site.install("acme-slow", {VERIFIERS: {"slow": "acme_slow"}}, {"acme_slow": slow})
    site.install("acme-sound", {VERIFIERS: {"sound": "acme_sound"}}, {"acme_sound": SOUND.format(name="sound")})
    site.install("acme-escape", {VERIFIERS: {"\x1b[31mred": "acme_escape"}}, {"acme_escape": SOUND.format(name="red")})
    site.install("acme-verb", {"fulmen.commands.v1": {"greet": "acme_verb"}}, {"acme_verb": VERB})
    (site.folder / "marks").mkdir()
    return site


NOISE = "print('not yours')\n"

BACKEND = """
def probe():
    print("probing")
    return Availability(ok=True, devices=("noise",))

@hookimpl
def fulmen_backends():
    print("describing")
    return [BackendInfo("noisy", "", probe, "json:dumps")]
"""

VERB = (
    HEAD
    + """
def run(argv):
    print("hello")
    return 0

@hookimpl
def fulmen_commands():
    return [CommandInfo("greet", "greet", run)]
"""
)


def fulmen(house: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command where these plugins are all that there is beside Fulmen's own."""
    marks = house.folder / "marks"
    for mark in marks.iterdir():
        mark.unlink()
    environment = os.environ | {"PYTHONPATH": str(house.folder), "ACME_MARKS": str(marks)}
    order = [sys.executable, "-P", "-m", "fulmen_core", *words]
    return subprocess.run(order, capture_output=True, text=True, check=False, env=environment)


def marks(house: Site) -> set[str]:
    """The plugin modules that the last command imported."""
    return {mark.name for mark in (house.folder / "marks").iterdir()}


def rows_of(text: str) -> dict[str, dict[str, Any]]:
    found = json.loads(text)
    return {row["distribution"]: row for row in (found["plugins"] if isinstance(found, dict) else found)}


def test_they_are_listed_with_whose_they_are_and_none_is_imported(house: Site) -> None:
    done = fulmen(house, "plugins", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = rows_of(done.stdout)
    for name, plugin in PLUGINS.items():
        row = rows[f"acme-{name}"]
        state = plugin.state if plugin.known else "declared"
        assert (row["name"], row["version"], row["state"]) == (name, "1.2.3", state)
        if plugin.known:
            assert plugin.reason in row["reason"]
            assert plugin.remedy in row["remedy"]
    assert rows["acme-left"]["state"] == rows["acme-right"]["state"] == "conflict"
    assert "is claimed by acme-left 1.2.3 and acme-right 1.2.3" in rows["acme-left"]["reason"]
    assert rows["acme-sound"]["state"] == "declared"
    assert marks(house) == set()


def test_a_name_cannot_steer_the_terminal(house: Site) -> None:
    done = fulmen(house, "plugins")
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mred" in done.stdout


def test_the_doctor_names_each_with_cause_and_remedy(house: Site) -> None:
    done = fulmen(house, "doctor", "--json")
    assert done.returncode == 1
    rows = rows_of(done.stdout)
    for name, plugin in PLUGINS.items():
        row = rows[f"acme-{name}"]
        assert (row["state"], row["version"]) == (plugin.state, "1.2.3"), row
        assert row["reason"].startswith(plugin.reason), row
        assert row["remedy"].startswith(plugin.remedy), row
        assert "\n" not in row["reason"]
    assert {rows[f"acme-{name}"]["state"] for name in ("sound", "noisy", "slow", "escape")} == {"active"}
    (remark,) = rows["acme-slow"]["notes"]
    assert remark.startswith("its import takes 1.5 s")


@pytest.mark.parametrize("words", [("greet",), ("backends", "--json"), ("model", "show", "--preset", "nano")])
def test_the_rest_of_the_program_runs(house: Site, words: tuple[str, ...]) -> None:
    done = fulmen(house, *words)
    assert done.returncode == 0, done.stderr
    if words[0] == "greet":
        assert (done.stdout, marks(house)) == ("hello\n", {"acme_verb"})
    if words[0] == "backends":
        assert {row["name"]: row["state"] for row in json.loads(done.stdout)}["noisy"] == "active"
        assert "not yours" in done.stderr
        assert "probing" in done.stderr


SELECT = """
import json, sys
from fulmen_core.errors import PluginError
from fulmen_core.registry import Registry
registry = Registry.discover()
said = {}
for name in json.loads(sys.argv[1]):
    try:
        said[name] = registry.verifier(name)("", {})
    except PluginError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


def test_selected_each_stops_with_one_sentence_and_the_sound_ones_go_on(house: Site) -> None:
    """Those that end the process when imported are left out: whoever selects them gets what they do."""
    ends = ("kills", "crashes")
    broken = [name for name, one in PLUGINS.items() if one.group == VERIFIERS and name not in (*ends, "nowhere")]
    asked = [*broken, "twice", "sound", "noisy", "slow"]
    environment = os.environ | {"PYTHONPATH": str(house.folder), "ACME_MARKS": str(house.folder / "marks")}
    script = SELECT.replace("Registry.discover()", "Registry.discover(disabled=['kills', 'crashes'])")
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(asked)], capture_output=True, text=True, check=True, env=environment
    )
    said = json.loads(done.stdout)
    for name in broken:
        head = f"the verifier '{name}' of acme-{name} 1.2.3 cannot be used: failed: "
        assert head + PLUGINS[name].reason in said[name]
        assert PLUGINS[name].remedy in said[name]
        assert "\n" not in said[name]
    assert "the name twice in fulmen.training.v1 is claimed by acme-left 1.2.3 and acme-right 1.2.3" in said["twice"]
    assert [said[name] for name in ("sound", "noisy", "slow")] == [1.0, 1.0, 1.0]
