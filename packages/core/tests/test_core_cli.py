"""The command: cheap help, one line per fault, exit codes, and machine-readable output."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.cli import context, main
from fulmen_core.cli.global_options import GlobalOptions, split
from fulmen_core.cli.verbs import BUILT_IN, FIRST_PARTY, installed_verbs
from fulmen_core.entry_points import read_entries
from fulmen_core.errors import UserError

COMMAND = """
from fulmen_core.descriptors import CommandInfo
from fulmen_core.hooks import hookimpl

@hookimpl
def fulmen_commands():
    return [CommandInfo("{verb}", "", "{verb}_verb:run")]
"""


def install_verb(site: Any, verb: str, body: str, distribution: str = "") -> None:
    """Install a distribution that brings one verb, whose module has this body."""
    modules = {f"{verb}_plugin": COMMAND.format(verb=verb), f"{verb}_verb": body}
    site.install(distribution or f"acme-{verb}", {"fulmen.commands.v1": {verb: f"{verb}_plugin"}}, modules)


def fulmen(site: Any, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with the site's plugins besides the installed ones."""
    environment = {**os.environ, "PYTHONPATH": str(site.folder), **options.pop("env", {})}
    order = [sys.executable, "-m", "fulmen_core", *words]
    return subprocess.run(order, capture_output=True, text=True, env=environment, check=False, timeout=120, **options)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FULMEN_")]:
        monkeypatch.delenv(name)


# -- help --------------------------------------------------------------------------------------------------------------


def test_help_costs_at_most_100_ms_of_cpu() -> None:
    def cost() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "fulmen_core", "--help"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cost() for _ in range(7)) <= 0.1


@pytest.mark.parametrize("words", [["--help"], []])
def test_help_imports_nothing_heavy_and_no_plugin(site: Any, words: Sequence[str]) -> None:
    site.install(
        "acme-verbs", {"fulmen.commands.v1": {"fly": "acme_fly"}}, {"acme_fly": "raise RuntimeError('imported')"}
    )
    code = f"""
        import sys
        from fulmen_core.cli import main
        code = main({words!r})
        heavy = ("torch", "pydantic", "pydantic_settings", "numpy", "rich", "pluggy", "importlib.metadata")
        print(code, [name for name in heavy if name in sys.modules], file=sys.stderr)
        members = {{name.partition(".")[0] for name in sys.modules if name.startswith("fulmen_")}}
        print(sorted(members | ({{"acme_fly"}} & sys.modules.keys())), file=sys.stderr)
    """
    environment = {**os.environ, "PYTHONPATH": str(site.folder)}
    order = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(order, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.splitlines() == ["0 []", "['fulmen_core']"]
    assert "fly" in done.stdout
    assert "acme-verbs" in done.stdout


def test_help_lists_every_verb_with_the_distribution_that_brings_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb, (summary, distribution) in {
        **{v: (s, "fulmen-core") for v, (s, _) in BUILT_IN.items()},
        **FIRST_PARTY,
    }.items():
        (line,) = [line for line in lines if line.split()[:1] == [verb]]
        assert summary in line
        assert distribution in line
    assert max(map(len, lines)) <= 120


def test_help_says_what_to_install_for_a_verb_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert main(["--help"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["serve"]]
    assert line.endswith("pip install fulmen-serving")


def test_the_quick_reading_of_entry_points_agrees_with_the_registrys(site: Any) -> None:
    site.install("acme-verbs", {"fulmen.commands.v1": {"fly": "a", "swim": "b:c"}, "fulmen.data.v1": {"x": "d"}})
    (site.folder / "broken-1.dist-info").mkdir()
    (site.folder / "broken-1.dist-info" / "entry_points.txt").write_bytes(b"[fulmen.commands.v1]\n\xff\xfe")
    real = {entry.name: entry.distribution for entry in read_entries() if entry.kind == "command"}
    assert {"fly", "swim"} <= real.keys()
    assert dict(installed_verbs()) == real


def test_every_first_party_verb_that_is_installed_comes_from_the_distribution_that_help_names() -> None:
    real = {entry.name: entry.distribution for entry in read_entries() if entry.group == "fulmen.commands.v1"}
    assert all(distribution == FIRST_PARTY[verb][1] for verb, distribution in real.items() if verb in FIRST_PARTY)


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fulmen {version('fulmen-core')}\n"


# -- the options before the verb ---------------------------------------------------------------------------------------


def test_options_before_the_verb_are_taken_and_the_rest_is_the_verbs() -> None:
    words = [
        "--no-plugin",
        "a",
        "--no-plugin=b",
        "--plugin",
        "x.py",
        "--threads=2",
        "--debug",
        "serve",
        "--debug",
        "--help",
    ]
    options, verb, rest = split(words)
    assert (options.disabled, options.threads, options.debug) == (("a", "b"), 2, True)
    assert options.files == (Path("x.py"),)
    assert (verb, rest) == ("serve", ["--debug", "--help"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--no-plugins", "x"], "unknown option --no-plugins: did you mean --no-plugin?"),
        (["--plugin"], "--plugin needs a value"),
        (["--threads", "0", "plugins"], "--threads needs a number of at least 1, not '0'"),
        (["--threads", "many", "plugins"], "--threads needs a number of at least 1, not 'many'"),
        (["plugin"], "unknown verb 'plugin': did you mean 'plugins'?"),
        (["plugins", "--jsn"], "unknown argument '--jsn' in fulmen plugins: did you mean --json?"),
        (["plugins", "--debug"], "--debug belongs before the verb: write `fulmen --debug ... plugins`"),
        (["plugins", "extra"], "unknown argument 'extra' in fulmen plugins: see `fulmen plugins --help`"),
        (["runs"], "the following arguments are required: show in fulmen runs"),
        (["--plugin", "nowhere.py", "plugins"], "there is no plugin file nowhere.py: check the path"),
    ],
)
def test_a_slip_on_the_command_line_is_one_line_and_exit_code_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"fulmen: error: {sentence}")
    assert err.count("\n") == 1


def test_a_verb_whose_distribution_is_missing_says_which_to_install(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve"]) == 2
    sentence = "the verb 'serve' comes with fulmen-serving, which is not installed: pip install fulmen-serving"
    assert capsys.readouterr().err == f"fulmen: error: {sentence}\n"


def test_a_verb_of_a_plugin_gets_its_arguments_and_gives_its_exit_code(
    site: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    install_verb(site, "fly", "def run(argv):\n    print(argv)\n    return 5")
    assert main(["--debug", "fly", "--high", "x"]) == 5
    assert capsys.readouterr().out == "['--high', 'x']\n"


def test_a_blocked_verb_is_not_imported_and_says_how_to_allow_it(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    install_verb(site, "fly", "raise RuntimeError")
    assert main(["--no-plugin", "acme-fly", "fly"]) == 2
    assert "blocked: disabled by the name acme-fly: to allow it, drop --no-plugin acme-fly" in capsys.readouterr().err
    assert not site.imported()


def test_a_verb_from_a_plugin_file(site: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from fulmen_core.descriptors import CommandInfo\nfrom fulmen_core.hooks import hookimpl\n"
        "@hookimpl\ndef fulmen_commands(): return [CommandInfo('greet', '', lambda argv: print('hello') or 0)]\n"
    )
    assert main(["--plugin", str(file), "greet"]) == 0
    assert capsys.readouterr().out == "hello\n"


def test_threads_reach_the_numeric_libraries(site: Any) -> None:
    install_verb(site, "fly", "import os\ndef run(argv):\n    print(os.environ['OMP_NUM_THREADS'])\n    return 0")
    assert fulmen(site, "--threads", "3", "fly").stdout == "3\n"
    assert fulmen(site, "fly", env={"FULMEN_THREADS": "2"}).stdout == "2\n"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, "None 1000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"GOMP_SPINCOUNT": "9"}, "None 9"),
        ({"KMP_BLOCKTIME": "1"}, "None None"),
    ],
)
def test_waiting_threads_soon_sleep_unless_the_environment_says_how_they_wait(
    site: Any, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], told: str
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.delenv(name, raising=False)  # set by verbs that ran in this process
    verb = f"import os\ndef run(argv):\n    print(*(os.environ.get(name) for name in {names}))\n    return 0"
    install_verb(site, "fly", verb)
    assert fulmen(site, "fly", env=said).stdout == f"{told}\n"


# -- faults ------------------------------------------------------------------------------------------------------------


def test_an_unexpected_exception_is_one_line_with_its_type_and_a_hint(site: Any) -> None:
    install_verb(site, "fly", "def run(argv):\n    raise ZeroDivisionError('two\\nlines')")
    done = fulmen(site, "fly")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "fulmen: error: unexpected ZeroDivisionError: two lines (run `fulmen --debug ...` for the traceback)\n"
    )


@pytest.mark.parametrize("how", [{"words": ["--debug"]}, {"env": {"FULMEN_DEBUG": "1"}}])
def test_debug_adds_the_traceback_and_keeps_the_line(site: Any, how: dict[str, Any]) -> None:
    install_verb(site, "fly", "def run(argv):\n    raise ZeroDivisionError('oh')")
    done = fulmen(site, *how.get("words", []), "fly", env=how.get("env", {}))
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "fly_verb.py" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("fulmen: error: unexpected ZeroDivisionError")


def test_a_user_error_of_a_verb_is_its_sentence_and_exit_code_2(site: Any) -> None:
    fault = "UserError('no corpus', where='here', remedy='add one')"
    install_verb(site, "fly", f"from fulmen_core.errors import UserError\ndef run(argv):\n    raise {fault}")
    done = fulmen(site, "fly")
    assert (done.returncode, done.stderr) == (2, "fulmen: error: no corpus in here: add one\n")


def test_a_missing_extra_is_named_by_what_installs_it(site: Any) -> None:
    install_verb(site, "fly", "def run(argv):\n    raise ModuleNotFoundError('No module named torch', name='torch.nn')")
    done = fulmen(site, "fly")
    assert done.returncode == 2
    assert done.stderr == "fulmen: error: this needs torch, which is not installed: pip install 'fulmen-core[model]'\n"


def test_an_interrupt_is_one_line_and_exit_code_130(site: Any) -> None:
    install_verb(site, "fly", "import time\ndef run(argv):\n    print('up', flush=True)\n    time.sleep(60)")
    environment = {**os.environ, "PYTHONPATH": str(site.folder)}
    order = [sys.executable, "-m", "fulmen_core", "fly"]
    process = subprocess.Popen(
        order,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a background job is deaf
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "fulmen: interrupted\n")


def test_a_reader_that_goes_away_is_no_fault_worth_a_word(site: Any) -> None:
    install_verb(site, "fly", "def run(argv):\n    for _ in range(200_000):\n        print('x' * 80)\n    return 0")
    environment = {**os.environ, "PYTHONPATH": str(site.folder)}
    order = [sys.executable, "-m", "fulmen_core", "fly"]
    process = subprocess.Popen(order, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), err) == (141, "")


def test_the_help_of_a_verb_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--help"]) == 0
    assert "usage: fulmen plugins" in capsys.readouterr().out


def test_a_lone_surrogate_in_a_result_is_printed(site: Any) -> None:
    install_verb(
        site,
        "fly",
        "from fulmen_core.cli.output import print_json\ndef run(argv):\n    print_json('\\udc80') or 0\n    return 0",
    )
    done = fulmen(site, "fly")
    assert (done.returncode, json.loads(done.stdout)) == (0, "\udc80")


# -- plugins and backends ----------------------------------------------------------------------------------------------

FIELDS = {"name", "kind", "distribution", "version", "state", "reason"}


def test_plugins_lists_every_installed_plugin_and_imports_none(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("acme-one", {"fulmen.backends.v1": {"one": "acme_one"}}, {"acme_one": "raise RuntimeError"})
    site.install("acme-old", {"fulmen.backends.v0": {"old": "acme_old"}})
    site.install("acme-two", {"fulmen.raise.v1": {"same": "acme_two"}})
    site.install("bolt-two", {"fulmen.raise.v1": {"same": "bolt_two"}})
    assert main(["--no-plugin", "one", "plugins", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row.keys() >= FIELDS for row in rows)
    assert [(row["name"], row["kind"], row["distribution"], row["state"]) for row in rows] == [
        ("old", "backend", "acme-old", "failed"),
        ("one", "backend", "acme-one", "blocked"),
        ("same", "raise", "acme-two", "conflict"),
        ("same", "raise", "bolt-two", "conflict"),
    ]
    assert not site.imported()


def test_backends_probes_them_and_says_why_one_cannot_be_used(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source = """
        from fulmen_core.descriptors import Availability, BackendInfo
        from fulmen_core.hooks import hookimpl

        @hookimpl
        def fulmen_backends():
            absent = lambda: Availability(False, "no driver: pip install acme[gpu]")
            present = lambda: Availability(True, devices=("cpu",), versions={"engine": "7"})
            return [BackendInfo("absent", "", absent, print, 9), BackendInfo("present", "", present, print)]
    """
    site.install("acme-one", {"fulmen.backends.v1": {"one": "acme_one"}}, {"acme_one": source})
    assert main(["backends", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row.keys() >= FIELDS for row in rows)
    assert [(row["name"], row["state"], row["reason"]) for row in rows] == [
        ("absent", "unavailable", "no driver: pip install acme[gpu]"),
        ("present", "active", "cpu, engine 7"),
    ]
    assert main(["backends"]) == 0
    assert "no driver: pip install acme[gpu]" in capsys.readouterr().out


def test_backends_explain_says_which_can_run_a_model_and_why_not(
    site: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = """
        from fulmen_core.backend import Capabilities
        from fulmen_core.descriptors import Availability, BackendInfo
        from fulmen_core.hooks import hookimpl

        class Made:
            def __init__(self, **can): self.can = Capabilities(**can)
            def capabilities(self): return self.can

        @hookimpl
        def fulmen_backends():
            ok = lambda: Availability(True)
            can = {"serve": True, "serve_dtypes": ("float32",)}
            train = lambda: Made(train=True, train_dtypes=("bfloat16",), formats=("checkpoint",), **can)
            graph = lambda: Made(formats=("onnx",), **can)
            return [BackendInfo("eager", "", ok, train, 2), BackendInfo("graph", "", ok, graph, 1)]
    """
    site.install("acme-one", {"fulmen.backends.v1": {"one": "acme_one"}}, {"acme_one": source})
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("")
    assert main(["backends", "explain", "--model", str(tmp_path), "--json"]) == 0
    eager, graph = json.loads(capsys.readouterr().out)
    assert (eager["serves"], eager["trains"]) == ("float32", "bfloat16")
    assert (graph["serves"], graph["why"]) == ("no", "it runs onnx, this is checkpoint")
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / MANIFEST_FILE).write_text('{"format": "onnx"}')
    assert main(["backends", "explain", "--model", str(exported), "--json"]) == 0
    eager, graph = json.loads(capsys.readouterr().out)
    assert (eager["serves"], eager["trains"], graph["serves"]) == ("no", "no", "float32")
    (exported / MANIFEST_FILE).write_text("{")
    assert main(["backends", "explain", "--model", str(exported)]) == 2
    assert main(["backends", "explain", "--model", str(tmp_path / "nowhere")]) == 2


def test_an_empty_installation_says_how_to_begin(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    assert "No plugin is installed" in capsys.readouterr().out
    assert main(["backends", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


# -- settings ----------------------------------------------------------------------------------------------------------


def test_the_environment_and_the_options_both_disable_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULMEN_PLUGINS_DISABLED", "a, b,")
    monkeypatch.setenv("FULMEN_PLUGINS_STRICT", "1")
    context.begin(GlobalOptions(disabled=("c",), threads=2))
    now = context.settings()
    assert (now.plugins_disabled, now.plugins_strict, now.threads, now.debug) == (("a", "b", "c"), True, 2, False)


def test_a_strict_environment_stops_at_a_plugin_of_another_generation(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("acme-old", {"fulmen.backends.v0": {"old": "acme_old"}})
    monkeypatch.setenv("FULMEN_PLUGINS_STRICT", "true")
    with pytest.raises(UserError, match="made for hook generation v0"):
        context.registry()


def test_a_setting_that_does_not_fit_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FULMEN_THREADS", "0")
    assert main(["plugins"]) == 2
    assert capsys.readouterr().err.startswith(
        "fulmen: error: 'threads' in the environment (FULMEN_...) should be greater than"
    )


def test_a_slip_in_the_name_of_a_setting_is_pointed_out(site: Any) -> None:
    done = fulmen(site, "plugins", env={"FULMEN_PLUGIN_DISABLED": "cpu", "FULMEN_UNRELATED_THING": "1"})
    assert done.returncode == 0
    assert "FULMEN_PLUGIN_DISABLED is no setting; did you mean FULMEN_PLUGINS_DISABLED?" in done.stderr
    assert "UNRELATED" not in done.stderr


def test_settings_and_registry_are_made_once_per_invocation(site: Any) -> None:
    assert context.registry() is context.registry()
    assert context.settings() is context.settings()
