"""The registry finds plugins without importing them, loads each once and alone, and says who broke what."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.descriptors import Availability, BackendInfo, DetectorInfo
from fulmen_core.errors import PluginError, UserError
from fulmen_core.hooks import hookimpl
from fulmen_core.registry import Registry

VERIFIERS = "fulmen.training.v1"

HEAD = """
from fulmen_core.descriptors import *
from fulmen_core.hooks import hookimpl
"""

GOOD = (
    HEAD
    + """
def score(answer, item):
    return float(answer == item["answer"])

@hookimpl
def fulmen_verifiers():
    return [VerifierInfo("{name}", "equality", score)]
"""
)


def verifier(name: str) -> str:
    return GOOD.format(name=name)


def test_discovery_lists_a_plugin_and_imports_nothing(site: Any) -> None:
    site.install("acme-checks", {VERIFIERS: {"acme": "acme_checks"}}, {"acme_checks": "raise RuntimeError('imported')"})
    records = Registry.discover().records()
    assert [(r.name, r.kind, r.distribution, r.version, r.state) for r in records] == [
        ("acme", "training", "acme-checks", "1.2.3", "declared")
    ]
    assert not site.imported()


def test_a_selected_plugin_is_loaded_and_becomes_active(site: Any) -> None:
    site.install("acme-checks", {VERIFIERS: {"acme": "acme_checks"}}, {"acme_checks": verifier("same")})
    registry = Registry.discover()
    assert registry.verifier("same")("4", {"answer": "4"}) == 1.0
    assert [record.state for record in registry.records()] == ["active"]
    assert registry.active_versions() == {"acme-checks": "1.2.3"}


def test_a_module_behind_several_entry_points_is_loaded_once_and_never_conflicts_with_itself(site: Any) -> None:
    source = (
        verifier("same")
        + """
@hookimpl
def fulmen_data_sources():
    return [SourceInfo("rows", "rows", "documents", lambda: iter([{"text": "a"}]))]

import pathlib
log = pathlib.Path(__file__).with_name("imports.log")
log.write_text((log.read_text() if log.exists() else "") + "x")
"""
    )
    points = {VERIFIERS: {"a": "acme_both", "b": "acme_both"}, "fulmen.data.v1": {"a": "acme_both"}}
    site.install("acme-both", points, {"acme_both": source})
    registry = Registry.discover()
    registry.verifier("same")
    assert list(registry.source("rows")()) == [{"text": "a"}]
    assert {record.state for record in registry.records()} == {"active"}
    assert (site.folder / "imports.log").read_text() == "x"


def test_an_entry_point_may_name_an_object_of_a_module(site: Any) -> None:
    source = (
        HEAD
        + """
class Checks:
    def __init__(self, name): self.name = name
    @hookimpl
    def fulmen_verifiers(self): return [VerifierInfo(self.name, "", lambda *_: 1.0)]

one, other = Checks("one"), Checks("other")
"""
    )
    points = {VERIFIERS: {"one": "acme_objects:one", "other": "acme_objects:other"}}
    site.install("acme-objects", points, {"acme_objects": source})
    registry = Registry.discover()
    assert registry.verifier("one")("", {}) == registry.verifier("other")("", {}) == 1.0


@pytest.mark.parametrize("blocked_by", ["acme", "acme-checks", "Acme_Checks"])
def test_a_blocked_plugin_is_never_imported_even_when_selected(site: Any, blocked_by: str) -> None:
    site.install("acme-checks", {VERIFIERS: {"acme": "acme_checks"}}, {"acme_checks": "raise RuntimeError('imported')"})
    registry = Registry.discover(disabled=[blocked_by])
    with pytest.raises(PluginError, match=f"blocked: disabled by the name {blocked_by}: to allow it, drop --no-plugin"):
        registry.verifier("acme")
    assert [record.state for record in registry.records()] == ["blocked"]
    assert not site.imported()


def test_blocking_a_name_that_nothing_has_is_said_aloud(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    site.install("acme-checks", {VERIFIERS: {"acme": "acme_checks"}})
    Registry.discover(disabled=["acmee"])
    assert "no plugin is called acmee, so nothing was disabled by that name; did you mean acme?" in caplog.text


FAULTS = {
    "raises at import": ("raise ValueError('no such device')", "its import raised ValueError: no such device"),
    "exits at import": ("raise SystemExit(3)", "its import raised SystemExit: 3"),
    "lacks a module": ("import acme_runtime_that_is_absent", "it needs the module acme_runtime_that_is_absent"),
    "has broken syntax": ("def (:", "its import raised SyntaxError"),
    "misspells a hook": (
        HEAD + "@hookimpl\ndef fulmen_verifier(): return []",
        "it implements fulmen_verifier, which is no hook; did you mean fulmen_verifiers?",
    ),
    "marks no hook": ("def fulmen_verifiers(): return []", "it implements no hook"),
    "takes foreign arguments": (
        HEAD + "@hookimpl\ndef fulmen_verifiers(config): return []",
        "its fulmen_verifiers takes config; the hook's arguments are: none",
    ),
    "implements another group": (
        HEAD + "@hookimpl\ndef fulmen_backends(): return []",
        "it implements none of the hooks of fulmen.training.v1",
    ),
    "only listens": (
        HEAD + "@hookimpl\ndef fulmen_stage_start(run, stage): pass",
        "it only listens to events, so it belongs in the group fulmen.events.v1",
    ),
    "raises in its hook": (
        HEAD + "@hookimpl\ndef fulmen_verifiers(): return 1 / 0",
        "fulmen_verifiers raised ZeroDivision",
    ),
    "returns no list": (
        HEAD + "@hookimpl\ndef fulmen_verifiers(): return None",
        "returned NoneType, not a list of VerifierInfo",
    ),
    "returns something else": (HEAD + "@hookimpl\ndef fulmen_verifiers(): return ['acme']", "returned str, not a list"),
    "gives an ill-formed name": (verifier("Not OK"), "gave the name 'Not OK'"),
    "gives a name twice": (
        HEAD + "@hookimpl\ndef fulmen_verifiers(): return [VerifierInfo('acme', '', print)] * 2",
        "gave the name 'acme' twice",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_plugin_fails_alone_and_by_name_when_it_is_selected(site: Any, fault: str) -> None:
    source, cause = FAULTS[fault]
    site.install("acme-broken", {VERIFIERS: {"acme": "acme_broken"}}, {"acme_broken": source})
    site.install("acme-sound", {VERIFIERS: {"sound": "acme_sound"}}, {"acme_sound": verifier("sound")})
    registry = Registry.discover()
    with pytest.raises(PluginError) as raised:
        registry.verifier("acme")
    sentence = str(raised.value)
    assert cause in sentence
    assert "the verifier 'acme' of acme-broken 1.2.3 cannot be used: failed" in sentence
    assert sentence.endswith("pip install --upgrade acme-broken")
    assert "\n" not in sentence
    assert registry.verifier("sound")("4", {"answer": "4"}) == 1.0
    assert {record.name: record.state for record in registry.records()} == {"acme": "failed", "sound": "active"}


def test_an_entry_point_whose_module_is_gone_asks_for_a_reinstall(site: Any) -> None:
    site.install("acme-gone", {VERIFIERS: {"acme": "acme_gone.plugin"}})
    with pytest.raises(
        PluginError, match=r"the installed metadata are stale: pip install --force-reinstall --no-deps acme-gone"
    ):
        Registry.discover().verifier("acme")


def test_a_broken_plugin_that_nobody_selected_is_not_imported(site: Any) -> None:
    site.install("acme-broken", {VERIFIERS: {"acme": "acme_broken"}}, {"acme_broken": "raise RuntimeError"})
    site.install("acme-sound", {VERIFIERS: {"sound": "acme_sound"}}, {"acme_sound": verifier("sound")})
    registry = Registry.discover()
    registry.verifier("sound")
    assert site.imported() == {"acme_sound"}
    assert {record.name: record.state for record in registry.records()} == {"acme": "declared", "sound": "active"}


@pytest.mark.parametrize(
    ("group", "reason", "remedy"),
    [
        ("fulmen.backends.v0", "it is made for hook generation v0, this is v1", "pip install --upgrade acme-old"),
        ("fulmen.backends.v2", "it is made for hook generation v2, this is v1", "pip install --upgrade fulmen-core"),
        ("fulmen.backend.v1", "no entry-point group fulmen.backend.v1; did the author mean fulmen.backends.v1?", ""),
    ],
)
def test_a_foreign_hook_generation_or_group_is_reported_without_an_import(
    site: Any, group: str, reason: str, remedy: str
) -> None:
    site.install("acme-old", {group: {"acme": "acme_old"}}, {"acme_old": "raise RuntimeError"})
    (record,) = Registry.discover().records()
    assert (record.name, record.kind, record.distribution, record.state) == ("acme", "backend", "acme-old", "failed")
    assert reason in record.reason
    assert remedy in record.remedy
    assert not site.imported()


def test_one_name_from_two_distributions_is_a_conflict_that_names_both_and_blocking_one_mends_it(site: Any) -> None:
    for maker in ("acme", "bolt"):
        site.install(f"{maker}-checks", {VERIFIERS: {"same": f"{maker}_checks"}}, {f"{maker}_checks": verifier("same")})
    with pytest.raises(
        PluginError, match=r"claimed by acme-checks 1\.2\.3 and bolt-checks 1\.2\.3.*--no-plugin bolt-checks"
    ):
        Registry.discover().verifier("same")
    assert {record.state for record in Registry.discover().records()} == {"conflict"}
    assert not site.imported()
    assert Registry.discover(disabled=["bolt-checks"]).verifier("same")("1", {"answer": "1"}) == 1.0


def test_one_descriptor_name_from_two_plugins_is_a_conflict_but_their_other_names_stay_usable(site: Any) -> None:
    two = (
        HEAD
        + """
@hookimpl
def fulmen_verifiers():
    return [VerifierInfo("same", "", lambda *_: 0.0), VerifierInfo("{own}", "", lambda *_: 1.0)]
"""
    )
    for maker in ("acme", "bolt"):
        site.install(
            f"{maker}-checks",
            {VERIFIERS: {maker: f"{maker}_checks"}},
            {f"{maker}_checks": two.format(own=f"{maker}-own")},
        )
    registry = Registry.discover()
    with pytest.raises(
        PluginError, match=r"the verifier same is claimed by acme-checks 1\.2\.3 and bolt-checks 1\.2\.3"
    ):
        registry.verifier("same")
    assert registry.verifier("bolt-own")("", {}) == 1.0
    assert {record.state for record in registry.records()} == {"conflict"}


def test_a_plugin_cannot_take_a_built_in_verb(site: Any) -> None:
    site.install("acme-verbs", {"fulmen.commands.v1": {"doctor": "acme_verbs"}})
    (record,) = Registry.discover(reserved={"doctor"}).records()
    assert (record.state, record.reason) == ("conflict", "the verb doctor is built in")


def test_an_unknown_name_gets_a_did_you_mean_and_the_list_of_what_is_there(site: Any) -> None:
    site.install("acme-checks", {VERIFIERS: {"acme": "acme_checks"}}, {"acme_checks": verifier("equality")})
    with pytest.raises(
        PluginError, match=r"unknown verifier 'equalty': did you mean 'equality'\? installed verifiers: equality"
    ):
        Registry.discover().verifier("equalty")


def test_an_unknown_name_also_names_the_plugins_that_failed_and_might_have_brought_it(site: Any) -> None:
    site.install("acme-broken", {VERIFIERS: {"acme": "acme_broken"}}, {"acme_broken": "1 / 0"})
    with pytest.raises(
        PluginError, match=r"unknown verifier 'x'.*not usable: acme \(acme-broken 1\.2\.3\): failed: .*ZeroDivision"
    ):
        Registry.discover().verifier("x")


def test_when_nothing_of_a_kind_is_installed_the_error_says_what_to_install(site: Any) -> None:
    registry = Registry.discover()
    with pytest.raises(PluginError, match="no backend is installed: pip install fulmen-backend-cpu"):
        registry.backend()
    with pytest.raises(PluginError, match="no guard is installed; pip install fulmen-safety"):
        registry.guard()


def test_a_verb_imports_only_the_module_of_its_own_entry_point(site: Any) -> None:
    command = HEAD + "@hookimpl\ndef fulmen_commands(): return [CommandInfo('{name}', '', lambda argv: len(argv))]"
    for name in ("fly", "swim"):
        site.install(
            f"acme-{name}", {"fulmen.commands.v1": {name: f"acme_{name}"}}, {f"acme_{name}": command.format(name=name)}
        )
    assert Registry.discover().command("fly")(["a", "b"]) == 2
    assert site.imported() == {"acme_fly"}


def test_a_loader_that_raises_is_the_plugins_fault_and_a_user_error_is_the_users(site: Any) -> None:
    source = (
        HEAD
        + """
from fulmen_core.errors import UserError

def refuse(settings):
    raise UserError("unknown key 'treshold'", where="policy.toml", remedy="did you mean 'threshold'?")

@hookimpl
def fulmen_raise_detectors():
    info = lambda name, load: DetectorInfo(name, "", ("input",), ("attack",), ("en",), "rules", load)
    return [info("refusing", refuse), info("lost", "acme_lost.nowhere:Detector"), info("echo", dict)]
"""
    )
    site.install("acme-guards", {"fulmen.raise.v1": {"acme": "acme_guards"}}, {"acme_guards": source})
    registry = Registry.discover()
    with pytest.raises(UserError, match=r"^unknown key 'treshold' in policy\.toml: did you mean 'threshold'"):
        registry.detector("refusing", {})
    with pytest.raises(
        PluginError, match=r"'lost' of acme-guards 1\.2\.3 cannot be used: failed: its loader raised ModuleNotFound"
    ):
        registry.detector("lost", {})
    assert registry.detector("echo", {"threshold": 0.5}) == {"threshold": 0.5}
    assert registry.detector_info("echo").phases == ("input",)


def test_a_guard_gets_its_policy_and_the_registry_it_came_from() -> None:
    module = ModuleType("a_guard")
    make = "lambda policy, registry: (policy, registry)"
    exec(HEAD + f"@hookimpl\ndef fulmen_guards(): return [GuardInfo('raise', '', {make})]", vars(module))
    registry = Registry.of(module)
    guard: Any = registry.guard(policy=Path("p.toml"))
    assert guard == (Path("p.toml"), registry)


def test_strict_mode_raises_at_the_first_fault(site: Any) -> None:
    site.install("acme-old", {"fulmen.backends.v0": {"acme": "acme_old"}})
    with pytest.raises(PluginError, match="made for hook generation v0"):
        Registry.discover(strict=True)


def test_strict_mode_raises_for_a_broken_neighbour_of_what_was_asked_for(site: Any) -> None:
    site.install("acme-broken", {VERIFIERS: {"acme": "acme_broken"}}, {"acme_broken": "1 / 0"})
    site.install("acme-sound", {VERIFIERS: {"checks": "acme_sound"}}, {"acme_sound": verifier("sound")})
    assert Registry.discover().verifier("sound")("1", {"answer": "1"}) == 1.0
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        Registry.discover(strict=True).verifier("sound")


def test_a_single_file_is_a_plugin_of_every_group(site: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        verifier("same") + "@hookimpl\ndef fulmen_commands(): return [CommandInfo('greet', '', lambda argv: 7)]"
    )
    registry = Registry.discover(files=[file])
    assert registry.has_command("greet")
    assert registry.command("greet")([]) == 7
    assert registry.verifier("same")("a", {"answer": "b"}) == 0.0
    assert [(record.name, record.kind, record.state) for record in registry.records()] == [("mine", "file", "active")]


def test_a_broken_plugin_file_stops_whoever_named_it(site: Any, tmp_path: Path) -> None:
    site.install("acme-sound", {VERIFIERS: {"sound": "acme_sound"}}, {"acme_sound": verifier("sound")})
    file = tmp_path / "mine.py"
    file.write_text("import acme_absent")
    registry = Registry.discover(files=[file])
    with pytest.raises(PluginError, match=r"the plugin 'mine'.*acme_absent.*: mend .*mine\.py"):
        registry.verifier("sound")


def test_a_missing_plugin_file_is_one_sentence(site: Any) -> None:
    with pytest.raises(UserError, match=r"^there is no plugin file nowhere\.py: check the path$"):
        Registry.discover(files=["nowhere.py"])


def test_of_refuses_a_broken_module() -> None:
    with pytest.raises(PluginError, match="it implements no hook"):
        Registry.of(ModuleType("empty"))


def test_many_threads_load_a_plugin_once(site: Any) -> None:
    source = (
        verifier("same")
        + """
import pathlib, time
time.sleep(0.05)
with pathlib.Path(__file__).with_name("imports.log").open("a") as log: log.write("x")
"""
    )
    site.install("acme-slow", {VERIFIERS: {"same": "acme_slow"}}, {"acme_slow": source})
    registry = Registry.discover()
    threads = [threading.Thread(target=registry.verifier, args=("same",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (site.folder / "imports.log").read_text() == "x"
    assert registry.verifier("same")("1", {"answer": "1"}) == 1.0


def test_a_distribution_that_is_there_twice_counts_once(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fulmen_core.entry_points import read_entries

    site.install("acme-checks", {VERIFIERS: {"acme": "acme_checks"}}, version="2.0")
    older = type(site)(tmp_path / "older")
    older.folder.mkdir()
    older.install("Acme_Checks", {VERIFIERS: {"acme": "acme_checks"}}, version="1.0")
    entries = read_entries([str(site.folder), str(older.folder)])
    assert [entry.version for entry in entries] == ["2.0"]


def test_metadata_without_a_name_do_not_stop_discovery(site: Any) -> None:
    site.install("acme-checks", {VERIFIERS: {"acme": "acme_checks"}})
    next(site.folder.glob("*.dist-info/METADATA")).unlink()
    (record,) = Registry.discover().records()
    assert (record.distribution, record.version) == ("acme_checks", "1.2.3")


@pytest.mark.parametrize("damage", [b"[fulmen.data.v1]\n\xff\xfe = x", b"[fulmen.data.v1]\nno equals sign"])
def test_damaged_metadata_are_passed_over_and_named(site: Any, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    site.install("acme-checks", {VERIFIERS: {"acme": "acme_checks"}})
    (site.folder / "broken-1.0.dist-info").mkdir()
    (site.folder / "broken-1.0.dist-info" / "entry_points.txt").write_bytes(damage)
    assert [record.name for record in Registry.discover().records()] == ["acme"]
    assert "broken-1.0.dist-info" in caplog.text


# -- backends ----------------------------------------------------------------------------------------------------------


class Named:
    """The least a registry needs to know of a backend."""

    def __init__(self, name: str) -> None:
        self.name = name


def backend_plugin(name: str, priority: int, *, ok: bool, reason: str = "no such device") -> ModuleType:
    module = ModuleType(f"plugin_{name}")

    @hookimpl
    def fulmen_backends() -> list[BackendInfo]:
        probe = Availability(ok, "" if ok else reason, devices=("cpu",), versions={"engine": "7"})
        return [BackendInfo(name, name, lambda: probe, lambda: Named(name), priority)]

    module.fulmen_backends = fulmen_backends  # type: ignore[attr-defined]
    return module


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=5))
def test_auto_takes_the_available_backend_of_highest_priority_and_remembers_whom_it_passed_over(
    backends: list[tuple[int, bool]],
) -> None:
    registry = Registry.of(*(backend_plugin(f"b{at}", priority, ok=ok) for at, (priority, ok) in enumerate(backends)))
    order = sorted(range(len(backends)), key=lambda at: (-backends[at][0], f"b{at}"))
    available = [at for at in order if backends[at][1]]
    if not available:
        with pytest.raises(PluginError, match="no backend can be used") as raised:
            registry.backend()
        assert all(f"b{at} of" in str(raised.value) for at in order)
        return
    assert registry.backend().name == f"b{available[0]}"
    assert registry.backend_choice is not None
    assert registry.backend_choice.chosen.reason == "cpu, engine 7"
    passed = order[: order.index(available[0])]
    assert [(one.name, one.state, one.reason) for one in registry.backend_choice.rejected] == [
        (f"b{at}", "unavailable", "no such device") for at in passed
    ]


def test_auto_says_in_the_log_whom_it_passed_over_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="fulmen_core")
    Registry.of(backend_plugin("fast", 9, ok=False), backend_plugin("slow", 0, ok=True)).backend()
    assert "passing over the backend fast (plugin_fast): unavailable: no such device" in caplog.text
    assert "using the backend slow" in caplog.text


def test_a_backend_chosen_by_name_that_is_unavailable_is_an_error_with_its_reason() -> None:
    registry = Registry.of(backend_plugin("fast", 9, ok=False), backend_plugin("slow", 0, ok=True))
    with pytest.raises(PluginError, match="the backend 'fast' cannot be used: unavailable: no such device"):
        registry.backend("fast")


def test_a_backend_whose_probe_was_too_hopeful_is_passed_over_by_auto(site: Any) -> None:
    source = (
        HEAD
        + """
class Slow:
    name = "slow"
@hookimpl
def fulmen_backends():
    ok = lambda: Availability(True)
    return [BackendInfo("fast", "", ok, lambda: 1 / 0, 9), BackendInfo("slow", "", ok, Slow, 0)]
"""
    )
    site.install("acme-backends", {"fulmen.backends.v1": {"acme": "acme_backends"}}, {"acme_backends": source})
    registry = Registry.discover()
    assert registry.backend().name == "slow"
    assert registry.backend_choice is not None
    (rejected,) = registry.backend_choice.rejected
    assert (rejected.name, rejected.state) == ("fast", "failed")
    assert "ZeroDivisionError" in rejected.reason
    with pytest.raises(
        PluginError, match=r"'fast' of acme-backends 1\.2\.3 cannot be used: failed: its loader raised ZeroDivision"
    ):
        registry.backend("fast")


def test_backend_records_say_how_each_backend_stands(site: Any) -> None:
    def source(name: str, probe: str) -> str:
        return HEAD + f"@hookimpl\ndef fulmen_backends(): return [BackendInfo('{name}', '', lambda: {probe}, print)]"

    probes = {"fine": "Availability(True, devices=('cpu',))", "absent": "Availability(False, 'no driver')"}
    probes |= {"raising": "1 / 0", "lying": "'yes'"}
    for name, probe in probes.items():
        site.install(
            f"acme-{name}", {"fulmen.backends.v1": {name: f"acme_{name}"}}, {f"acme_{name}": source(name, probe)}
        )
    site.install(
        "acme-broken", {"fulmen.backends.v1": {"broken": "acme_broken"}}, {"acme_broken": "import acme_nowhere"}
    )
    site.install("acme-blocked", {"fulmen.backends.v1": {"blocked": "acme_blocked"}})
    records = {record.name: record for record in Registry.discover(disabled=["blocked"]).backend_records()}
    assert {name: record.state for name, record in records.items()} == {
        "fine": "active",
        "absent": "unavailable",
        "raising": "failed",
        "lying": "failed",
        "broken": "failed",
        "blocked": "blocked",
    }
    assert records["absent"].reason == "no driver"
    assert records["fine"].reason == "cpu"
    assert "ZeroDivisionError" in records["raising"].reason
    assert "acme_nowhere" in records["broken"].reason
    assert all(record.distribution == f"acme-{name}" for name, record in records.items())


def test_an_exporter_that_is_unavailable_says_which_extra_is_missing() -> None:
    module = ModuleType("an_exporter")
    exec(
        HEAD + "@hookimpl\ndef fulmen_exporters():\n"
        "    return [ExporterInfo('onnx', '', lambda: Availability(False, 'pip install acme[gpu]'), object)]",
        vars(module),
    )
    with pytest.raises(PluginError, match=r"the exporter 'onnx' cannot be used: unavailable: pip install acme\[gpu\]"):
        Registry.of(module).exporter("onnx")


def test_detectors_are_data_until_they_are_made() -> None:
    module = ModuleType("a_detector")

    @hookimpl
    def fulmen_raise_detectors() -> list[DetectorInfo]:
        return [DetectorInfo("lazy", "", ("input",), ("pii",), ("en",), "rules", "acme_never_there:Detector")]

    module.fulmen_raise_detectors = fulmen_raise_detectors  # type: ignore[attr-defined]
    assert Registry.of(module).detector_info("lazy").categories == ("pii",)
