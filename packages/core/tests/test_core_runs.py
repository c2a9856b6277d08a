"""A run skips what did not change, survives a kill at any instant, and never publishes half an artefact."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fulmen_core.cli import main
from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import hash_tree
from fulmen_core.hooks import hookimpl
from fulmen_core.registry import Registry
from fulmen_core.runs import Artefact, RunDirectory

Build = Callable[[Path], Mapping[str, Any]]


class Writer:
    """A build that writes its text and counts how often it ran."""

    def __init__(self, text: str = "content", **measurements: Any) -> None:
        self.text, self.measurements, self.runs = text, measurements, 0

    def __call__(self, work: Path) -> Mapping[str, Any]:
        self.runs += 1
        (work / "file.txt").write_text(self.text)
        return self.measurements


def step(run: RunDirectory, build: Build, name: str = "thing", config: Any = None, inputs: Any = None) -> Artefact:
    return run.step(name, kind="text", config=config or {}, inputs=inputs or {}, build=build)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def test_a_step_publishes_what_its_build_left_with_its_measurements(run: RunDirectory) -> None:
    made = step(run, Writer("hello", loss=1.25), config={"steps": 3})
    assert (made.path / "file.txt").read_text() == "hello"
    assert (made.measurements, made.kind, made.skipped) == ({"loss": 1.25}, "text", False)
    assert made.hash == hash_tree(made.path)
    entry = run.entries()["thing"]
    assert (entry.config, entry.measurements, entry.hash) == ({"steps": 3}, {"loss": 1.25}, made.hash)
    assert run.artefact("thing").path == made.path


def test_a_step_whose_config_inputs_and_output_are_unchanged_is_skipped(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("a")
    build = Writer(loss=0.5)
    for skipped in (False, True, True):
        made = step(RunDirectory(run.root), build, config={"a": [1, 2]}, inputs={"corpus": tmp_path / "corpus.txt"})
        assert (made.skipped, made.measurements) == (skipped, {"loss": 0.5})
    assert build.runs == 1


def test_a_changed_config_input_or_output_makes_the_step_run_again(run: RunDirectory, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a")
    build = Writer()
    step(run, build, config={"a": 1}, inputs={"corpus": corpus})
    step(run, build, config={"a": 2}, inputs={"corpus": corpus})
    assert build.runs == 2
    corpus.write_text("b")
    step(run, build, config={"a": 2}, inputs={"corpus": corpus})
    assert build.runs == 3
    (run.root / "thing" / "file.txt").write_text("edited by hand")
    made = step(run, build, config={"a": 2}, inputs={"corpus": corpus})
    assert build.runs == 4
    assert (made.path / "file.txt").read_text() == "content"


def test_a_change_upstream_runs_what_depends_on_it_and_an_equal_rebuild_does_not(run: RunDirectory) -> None:
    downstream = Writer("down")
    for upstream_config, text, runs in (({"v": 1}, "x", 1), ({"v": 2}, "x", 1), ({"v": 3}, "y", 2)):
        upstream = step(run, Writer(text), "up", upstream_config)
        step(run, downstream, "down", inputs={"up": upstream})
        assert downstream.runs == runs


def test_the_manifest_names_the_sources_and_the_plugins_that_helped(tmp_path: Path) -> None:
    module = ModuleType("a_plugin")

    @hookimpl
    def fulmen_verifiers() -> list[Any]:
        return []

    module.fulmen_verifiers = fulmen_verifiers  # type: ignore[attr-defined]
    run = RunDirectory(tmp_path / "run", registry=Registry.of(module))
    (tmp_path / "corpus").mkdir()
    up = step(run, Writer(), "up", inputs={"corpus": tmp_path / "corpus"})
    step(run, Writer(), "down", inputs={"up": up})
    up_entry, down_entry = run.entries().values()
    assert up_entry.inputs["corpus"].source == str(tmp_path / "corpus")
    assert (down_entry.inputs["up"].source, down_entry.inputs["up"].hash) == ("up", up.hash)
    assert "a_plugin" in down_entry.plugins


class Config(BaseModel):
    """A pydantic config."""

    rate: float = 0.1
    where: Path = Path("a/b")


@dataclass(frozen=True)
class Plain:
    """A dataclass config."""

    sizes: tuple[int, ...] = (1, 2)
    names: frozenset[str] = frozenset({"b", "a"})


@pytest.mark.parametrize("config", [Config(), Plain(), {"inner": Config(), "list": [Plain()]}])
def test_models_and_dataclasses_are_configs_and_compare_equal_after_a_restart(run: RunDirectory, config: Any) -> None:
    build = Writer()
    step(run, build, config=config)
    assert step(RunDirectory(run.root), build, config=config).skipped


def test_measurements_that_json_lacks_are_kept_as_words(run: RunDirectory) -> None:
    made = step(run, Writer(nan=float("nan"), top=float("inf")))
    assert made.measurements == {"nan": "nan", "top": "inf"}
    assert step(run, Writer()).measurements == {"nan": "nan", "top": "inf"}


def test_checkpoints_are_removed_before_publishing(run: RunDirectory) -> None:
    def build(work: Path) -> Mapping[str, Any]:
        (work / "checkpoints").mkdir()
        (work / "checkpoints" / "step-1").write_text("big")
        (work / "model").write_text("small")
        return {}

    assert names(step(run, build).path) == ["model"]


def test_a_build_that_raises_publishes_nothing_and_finds_its_work_again(run: RunDirectory) -> None:
    def build(work: Path) -> Mapping[str, Any]:
        if not (work / "half").exists():
            (work / "half").write_text("1")
            raise KeyboardInterrupt
        (work / "whole").write_text("2")
        return {}

    with pytest.raises(KeyboardInterrupt):
        step(run, build)
    assert not (run.root / "thing").exists()
    assert run.entries() == {}
    assert names(step(run, build).path) == ["half", "whole"]


def test_a_failed_rebuild_leaves_the_old_artefact_in_place(run: RunDirectory) -> None:
    step(run, Writer("old"), config={"v": 1})

    def build(work: Path) -> Mapping[str, Any]:
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError):
        step(run, build, config={"v": 2})
    assert (run.artefact("thing").path / "file.txt").read_text() == "old"


def test_work_of_an_older_config_is_not_resumed_and_is_cleared_away(run: RunDirectory) -> None:
    def interrupted(work: Path) -> Mapping[str, Any]:
        (work / "of-config-1").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step(run, interrupted, config={"v": 1})
    assert names(step(run, Writer(), config={"v": 2}).path) == ["file.txt"]
    assert names(run.root / ".work") == ["lock"]


def build_two_versions(root: Path, finished: Path, version: int) -> Artefact:
    """A step of three files that resumes from what it finds, and notes every time it comes to its end."""

    def build(work: Path) -> Mapping[str, Any]:
        for name in "abc":
            if not (work / name).exists():
                (work / f"{name}.part").write_text(f"{version}")
                (work / f"{name}.part").rename(work / name)
        with finished.open("a") as log:
            log.write(f"{version} ")
        return {"version": version}

    return RunDirectory(root).step("thing", kind="text", config={"version": version}, inputs={}, build=build)


def killed_at(event: int, root: Path, finished: Path, version: int) -> bool:
    """Run the step in a fork that SIGKILLs itself at its n-th file operation. Returns whether it got that far."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            touches = name in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
            if touches and str(root) in str(arguments[0]):
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        sys.addaudithook(hook)
        build_two_versions(root, finished, version)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_file_operation_loses_no_finished_build_and_publishes_no_half_one(tmp_path: Path) -> None:
    event, killed = 0, True
    while killed:
        case = tmp_path / str(event)
        root, finished = case / "run", case / "finished"
        case.mkdir()
        build_two_versions(root, finished, 1)
        killed = killed_at(event, root, finished, 2)
        contents = {(root / "thing" / name).read_text() for name in "abc"} if (root / "thing").exists() else set()
        assert contents in (set(), {"1"}, {"2"}), event  # whole, be it the old one or the new one
        RunDirectory(root).entries()  # the manifest is never half written
        recorded = contents == {"2"} or any((root / ".work").glob("*.finished"))
        ends = finished.read_text()
        made = build_two_versions(root, finished, 2)
        assert {(made.path / name).read_text() for name in "abc"} == {"2"}, event
        assert (made.measurements, made.hash) == ({"version": 2}, hash_tree(made.path))
        assert not recorded or finished.read_text() == ends, "a finished build was made again"
        assert build_two_versions(root, finished, 2).skipped
        assert (names(root), names(root / ".work")) == ([".work", "manifest.json", "thing"], ["lock"])
        event += 1
    assert event > 25, "the hook saw too few operations to mean anything"


RESUMABLE = """
    import sys, time
    from pathlib import Path
    from fulmen_core.runs import RunDirectory

    def build(work):
        state = work / "checkpoints" / "state"
        state.parent.mkdir(exist_ok=True)
        done = int(state.read_text()) if state.exists() else 0
        for number in range(done, 40):
            time.sleep(0.02)
            (work / f"{number}.txt").write_text(str(number))
            (state.parent / "new").write_text(str(number + 1))
            (state.parent / "new").replace(state)
            print(number, flush=True)
        return {"resumed_from": done}

    made = RunDirectory(Path(sys.argv[1])).step("thing", kind="text", config={}, inputs={}, build=build)
    print("from", made.measurements["resumed_from"])
"""


def test_a_build_killed_midway_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    order = [sys.executable, "-c", textwrap.dedent(RESUMABLE), str(tmp_path / "run")]
    process = subprocess.Popen(order, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "10":
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "run" / "thing").exists()
    second = subprocess.run(order, capture_output=True, text=True, check=True)
    resumed = int(second.stdout.split()[-1])
    assert 10 <= resumed <= 40
    assert names(tmp_path / "run" / "thing") == sorted(f"{number}.txt" for number in range(40))


def test_two_processes_cannot_work_in_one_run_directory(tmp_path: Path) -> None:
    order = [sys.executable, "-c", textwrap.dedent(RESUMABLE), str(tmp_path / "run")]
    process = subprocess.Popen(order, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        with pytest.raises(UserError, match=rf"another process \(pid {process.pid}\) works in .*run: wait for it"):
            step(RunDirectory(tmp_path / "run"), Writer())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    step(RunDirectory(tmp_path / "run"), Writer())  # the lock died with its owner


def test_two_threads_cannot_work_in_one_run_directory(run: RunDirectory) -> None:
    def build(work: Path) -> Mapping[str, Any]:
        with ThreadPoolExecutor(1) as pool, pytest.raises(UserError, match=rf"\(pid {os.getpid()}\) works in"):
            pool.submit(step, RunDirectory(run.root), Writer(), "other").result()
        return {}

    step(run, build)


def test_steps_may_nest_even_through_another_object(run: RunDirectory) -> None:
    def outer(work: Path) -> Mapping[str, Any]:
        inner = step(RunDirectory(run.root), Writer("inner"), "inner")
        (work / "copy").write_text((inner.path / "file.txt").read_text())
        return {}

    assert (step(run, outer, "outer").path / "copy").read_text() == "inner"
    assert list(run.entries()) == ["inner", "outer"]


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        '{"format": "fulmen-run/1", "artefacts": {"thing": {"kind": 3}}}',
        '{"format": "fulmen-run/9", "artefacts": {}}',
        "[]",
        '{"artefacts": {}}',
    ],
)
def test_a_damaged_manifest_is_one_sentence_and_nothing_is_built(run: RunDirectory, damage: str) -> None:
    step(run, Writer())
    (run.root / "manifest.json").write_text(damage)
    build = Writer()
    with pytest.raises(CorruptArtefact, match=r"manifest\.json") as raised:
        step(run, build)
    assert "\n" not in str(raised.value)
    assert build.runs == 0


def test_a_missing_input_is_one_sentence(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^there is no .*nowhere in the input 'corpus': check the path$"):
        step(run, Writer(), inputs={"corpus": tmp_path / "nowhere"})


def test_an_unknown_artefact_gets_a_did_you_mean(run: RunDirectory) -> None:
    step(run, Writer(), "shards")
    with pytest.raises(UserError, match=r"no artefact 'shard' in .*: did you mean 'shards'\? artefacts: shards"):
        run.artefact("shard")


@pytest.mark.parametrize("name", ["", "manifest.json", "../escape", ".work", "a/b"])
def test_names_that_are_no_folder_of_the_run_are_refused(run: RunDirectory, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name an artefact"):
        step(run, Writer(), name)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.booleans()), min_size=1, max_size=8))
def test_whatever_the_history_the_last_successful_build_of_each_name_is_what_is_there(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int, bool]]
) -> None:
    run = RunDirectory(tmp_path_factory.mktemp("history") / "run")
    there: dict[str, int] = {}
    for name, version, fails in history:

        def build(work: Path, version: int = version, fails: bool = fails) -> Mapping[str, Any]:
            (work / "version").write_text(str(version))
            if fails:
                raise RuntimeError
            return {}

        try:
            made = step(run, build, name, {"version": version})
            assert made.skipped == (there.get(name) == version)
            there[name] = version
        except RuntimeError:
            assert there.get(name) != version
    assert {name: int((run.root / name / "version").read_text()) for name in there} == there
    assert set(run.entries()) == set(there)


def test_runs_show_draws_what_was_made_from_what(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    up = step(run, Writer(documents=7), "shards")
    step(run, Writer(loss=1.23456789), "base", inputs={"data": up})
    assert main(["runs", "show", str(run.root)]) == 0
    drawn = capsys.readouterr().out
    assert f"from  data = shards ({up.hash[:12]})" in drawn
    assert "documents  7" in drawn
    assert "loss  1.23457" in drawn
    assert main(["runs", "show", str(run.root.parent), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert [artefact["name"] for artefact in shown["artefacts"]] == ["shards", "base"]
    assert all(artefact["there"] for artefact in shown["artefacts"])


def test_runs_show_of_a_folder_without_runs_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(
        f"fulmen: error: no run in {tmp_path}: a run directory holds a manifest.json"
    )
    assert main(["runs", "show", str(tmp_path / "nowhere")]) == 2
