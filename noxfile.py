# /// script
# dependencies = ["nox[uv]>=2025.5.1"]
# ///
"""Every session of Fulmen. `nox -l` lists them; `nox -s demo` runs the main job, `nox -s tests` the default tests."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.download_python = "never"  # a missing interpreter is skipped, not fetched
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
MEMBERS = {
    tomllib.loads(path.read_text())["project"]["name"]: path.parent.relative_to(ROOT)
    for pattern in ("packages/*", "backends/*", "plugins/*")
    for path in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))
}
#: Backend -> the extras of its distribution that serving takes where nothing is special about the machine.
BACKENDS = {"cpu": "", "cuda": "", "onnxruntime": "[cpu]", "openvino": "[cpu]", "tensorrt": "[rtx]"}
#: Backends that serve an artefact which can be made anywhere.
EXPORTED = ("onnxruntime", "openvino")
PLUGIN_SETS = {
    "none": (),
    "pii": ("pii",),
    "attack": ("attack",),
    "all": ("pii", "secrets", "attack", "harm", "toxicity"),
}
#: Extras that `alone` leaves out: they need a GPU, or an index of NVIDIA's.
LEFT_OUT = ("gpu", "datacenter")
WHEELHOUSE = ROOT / "wheelhouse"
COMBO_MODELS = WHEELHOUSE / "combo-models"
TORCH_FREE_TESTS = (
    "packages/safety/tests",
    *(f"plugins/raise-{name}/tests" for name in ("pii", "secrets", "attack", "harm", "toxicity")),
)
COMBO_RECORDS = WHEELHOUSE / "combo-records"
#: Processes that share the default tests; each may take 4 GB.
TEST_WORKERS = min(4, os.cpu_count() or 1)


def prepare(session: nox.Session) -> None:
    """Give pip and uv the same constraints and the same local wheels."""
    for variable in ("PIP_CONSTRAINT", "UV_CONSTRAINT"):
        session.env[variable] = str(ROOT / "constraints.txt")
    if find_links := os.environ.get("PIP_FIND_LINKS"):
        session.env["UV_FIND_LINKS"] = find_links.replace(" ", ",")
    session.env["UV_PYTHON_DOWNLOADS"] = "never"


def install_workspace(session: nox.Session, *requirements: str) -> None:
    """Install every member editable, and the named files of requirements/."""
    prepare(session)
    arguments = [argument for name in ("members.txt", *requirements) for argument in ("-r", f"requirements/{name}")]
    session.install(*arguments)


def build_wheels(session: nox.Session) -> None:
    """Build a wheel of every member into the wheelhouse, so that siblings resolve before they are published."""
    prepare(session)
    session.install("build", "hatchling")
    for folder in MEMBERS.values():
        session.run(
            "python", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(WHEELHOUSE), str(folder), silent=True
        )


def install_from_wheelhouse(session: nox.Session, *requirements: str) -> None:
    """Install requirements, taking members from the wheelhouse and everything else from the index."""
    # the option hides the variable, so that what the variable names is named again: it may hold the torch to take
    places = [str(WHEELHOUSE), *filter(None, (session.env.get("UV_FIND_LINKS") or "").split(","))]
    session.install(*(part for place in places for part in ("--find-links", place)), *requirements)


def run_default_tests(session: nox.Session) -> None:
    """Run the default tests, file by file on all cores. `-- -n 0` runs them in one process, as a debugger wants it."""
    threads = max(1, (os.cpu_count() or 1) // TEST_WORKERS)
    session.run(
        "pytest", "-m", "not slow and not browser and not gpu", "-n", str(TEST_WORKERS), "--dist", "loadfile",
        *session.posargs, env={"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip


@nox.session
def demo(session: nox.Session) -> None:
    """The main job: raw text in, a guarded endpoint and an ONNX artefact out. `-- key=value` changes the recipe."""
    install_workspace(session)
    session.run("fulmen", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The default tests, with the backend x plugin-set matrix inside, in one environment."""
    install_workspace(session, "test.txt")
    run_default_tests(session)


@nox.session
def slow(session: nox.Session) -> None:
    """Suites that take minutes: whole runs at nano size, long workloads."""
    install_workspace(session, "test.txt")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """The web page in a real Chromium: FULMEN_TEST_CHROMIUM, else Playwright's own, else the system's."""
    install_workspace(session, "test.txt", "browser.txt")
    session.run("pytest", "-m", "browser", "packages/serving/tests/browser", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """What needs a GPU; without one it skips and says why, and fails for the backends that FULMEN_REQUIRE names."""
    install_workspace(session, "test.txt")
    session.run("pytest", "-m", "gpu", "backends", *session.posargs)


@nox.session(reuse_venv=False)
@nox.parametrize("distribution", sorted(MEMBERS))
def alone(session: nox.Session, distribution: str) -> None:
    """Install one member with what it declares, nothing else: every module imports; then its tests with extras."""
    build_wheels(session)
    folder = MEMBERS[distribution]
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    install_from_wheelhouse(session, distribution)
    session.run("python", "tests/alone/import_every_module.py", distribution)
    extras = ",".join(name for name in project["project"].get("optional-dependencies", {}) if name not in LEFT_OUT)
    test_group = project.get("dependency-groups", {}).get("test", [])
    if (folder / "tests").is_dir():
        install_from_wheelhouse(
            session, f"{distribution}[{extras}]" if extras else distribution, "-r", "requirements/test.txt", *test_group
        )
        session.run("pytest", "-m", "not slow and not browser and not gpu", str(folder / "tests"), *session.posargs)


@nox.session
def combo_models(session: nox.Session) -> None:
    """Make the nano checkpoint that the combinations serve, and its artefacts."""
    build_wheels(session)
    install_from_wheelhouse(session, "fulmen-trainer", *(f"fulmen-backend-{name}[cpu,export]" for name in EXPORTED))
    session.run("python", "tests/combo/make_models.py", str(COMBO_MODELS))


def distributions_for(backend: str, plugins: str) -> dict[str, str]:
    """What serving on one backend behind one set of RAISE plugins takes: distribution -> its extras."""
    guards = {f"fulmen-raise-{name}": "" for name in PLUGIN_SETS[plugins]}
    return {"fulmen-serving": "", "fulmen-safety": "", f"fulmen-backend-{backend}": BACKENDS[backend], **guards}


def serve_combination(session: nox.Session, backend: str, plugins: str, resolution: str = "highest") -> None:
    """Discovery, guard and a served answer; what was seen is kept for `compatibility`."""
    record = f"{resolution}-{session.python or 'python'}-{backend}-{plugins}.json"
    arguments = {
        "backend": backend,
        "plugins": plugins,
        "models": COMBO_MODELS,
        "resolution": resolution,
        "record": COMBO_RECORDS / record,
    }
    options = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    session.run("python", "tests/combo/smoke.py", *options)


@nox.session(reuse_venv=False, requires=["combo_models"])
@nox.parametrize("plugins", list(PLUGIN_SETS))
@nox.parametrize("backend", list(BACKENDS))
def combo(session: nox.Session, backend: str, plugins: str) -> None:
    """A real environment of one backend and one plugin set: discovery, guard and a served answer."""
    prepare(session)
    install_from_wheelhouse(session, *(name + extras for name, extras in distributions_for(backend, plugins).items()))
    serve_combination(session, backend, plugins)


@nox.session(reuse_venv=False, requires=["combo_models"], python=["3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Newer interpreters, where they are: serving without torch, and the tests of what needs none."""
    prepare(session)
    wanted = [name + extras for name, extras in distributions_for("onnxruntime", "all").items()]
    install_from_wheelhouse(session, *wanted, "-r", "requirements/torch-free-test.txt")
    serve_combination(session, "onnxruntime", "all")
    session.run("pytest", "-m", "not slow and not browser and not gpu", *TORCH_FREE_TESTS, *session.posargs)


@nox.session(reuse_venv=False, requires=["combo_models"])
def minimums(session: nox.Session) -> None:
    """The oldest versions that the members allow: a served combination, then the default tests. Needs uv."""
    if session.venv_backend != "uv":
        session.skip("only uv resolves to the oldest versions")
    prepare(session)
    # From their folders: uv takes the oldest of what folders ask for, and the newest of what wheels ask for.
    oldest = ("--resolution", "lowest-direct")
    wanted = {"fulmen-core": "[tokenizer]", **distributions_for("onnxruntime", "all")}
    editable = [part for name, extras in wanted.items() for part in ("-e", f"./{MEMBERS[name]}{extras}")]
    session.install(*oldest, *editable)
    serve_combination(session, "onnxruntime", "all", "lowest")
    session.install(*oldest, "-r", "requirements/members.txt", "-r", "requirements/test.txt")
    run_default_tests(session)


@nox.session(venv_backend="none")
def compatibility(session: nox.Session) -> None:
    """Write docs/reference/compatibility.md from what `combo`, `pythons` and `minimums` saw."""
    session.run("python", "tests/combo/table.py", str(COMBO_RECORDS), "docs/reference/compatibility.md")


@nox.session
def wheels(session: nox.Session) -> None:
    """Build every wheel, then install four subsets from the wheelhouse and run them."""
    build_wheels(session)
    session.run("python", "tests/wheels/subsets.py", str(WHEELHOUSE), "constraints.txt")


@nox.session
@nox.parametrize(
    "name",
    [
        "train_step",
        "infer_cpu",
        "products",
        "quantisation",
        "contended_threads",
        "serve",
        "engine",
        "retrieval",
        "soak",
        "cuda",
    ],
)
def bench(session: nox.Session, name: str) -> None:
    """One of the measurements of bench/, alone on the machine. `-- --help` says what it takes."""
    install_workspace(session, "test.txt")
    session.run("python", f"bench/{name}.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, formatting, and the import contracts."""
    install_workspace(session, "lint.txt")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over the source of every member and of the example plugins."""
    install_workspace(session, "lint.txt")
    folders = [*MEMBERS.values(), *(path.relative_to(ROOT) for path in sorted(ROOT.glob("examples/*-*")))]
    session.run("mypy", *(str(folder / "src") for folder in folders if (folder / "src").is_dir()))


@nox.session
def ray(session: nox.Session) -> None:
    """Two replicas on a Ray of this machine: routed by prefix, killed, replaced."""
    install_workspace(session, "test.txt", "ray.txt")
    session.run("pytest", "plugins/serving-ray", *session.posargs)


@nox.session
def deploy(session: nox.Session) -> None:
    """Lint examples/deploy: container file, systemd unit, Helm chart, alerts; each tool that this machine has."""
    install_workspace(session, "deploy.txt")
    session.run("python", "tests/deploy/check.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation with warnings as errors."""
    prepare(session)
    session.install("-r", "requirements/docs.txt")
    session.run("mkdocs", "build", "--strict", *session.posargs)
