"""Check everything in `examples/deploy` with the tools that its readers will use; run by `nox -s deploy`.

    python tests/deploy/check.py

Each check says what it found, or why it did not run here. Exit code 1 if anything is at fault.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples/deploy"
CHART = DEPLOY / "helm/fulmen"
YAMLLINT = (
    "{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: {max-spaces-inside: 1}}}"
)
#: Of `systemd-analyze security`, 0 to 10 (exposed); the unit has 1.4.
MAX_EXPOSURE = 2.0
OLDEST_KUBERNETES = "1.27.0"

#: Values that a cluster's administrator might give: the least, and everything at once.
VALUES: dict[str, dict[str, Any]] = {
    "least": {"model": {"claimName": "models"}},
    "all": {
        "model": {"claimName": "models", "subPath": "chat", "name": "chat"},
        "arguments": ["--dtype=bfloat16", "--max-sequences=32"],
        "platformSecret": "fulmen",
        "tlsSecret": "fulmen-tls",
        "otlpEndpoint": "http://collector:4318",
        "autoscaling": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "models", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "podAnnotations": {"a": "b"},
        "serviceAccount": {"annotations": {"a": "b"}},
    },
}
WRONG_VALUES = [{}, {"model": {"claimName": "models"}, "replica": 3}, {"model": {"claimName": "models"}, "replicas": 0}]


class NotHere(Exception):
    """A check needs a tool that this machine lacks."""


def run(*command: str, cwd: Path = ROOT) -> Iterator[str]:
    """Run a linter; what it prints if it is not content."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        yield (done.stdout + done.stderr).strip() or f"{command[0]} ended with {done.returncode}"


def tool(name: str, package: str) -> str:
    """Where a program is.

    Raises:
        NotHere: nowhere.
    """
    found = shutil.which(name)
    if found is None:
        raise NotHere(f"{name} is not installed (Debian package {package})")
    return found


def rendered() -> Iterator[tuple[str, str]]:
    """Every manifest of every set of values, by name."""
    with helm.Chart.load(CHART) as chart:
        for name, values in VALUES.items():
            for path, text in chart.render(values, name="demo", namespace="models").items():
                yield f"{name}: {Path(path).name}", text


def container() -> Iterator[str]:
    """The container file, by hadolint."""
    yield from run("hadolint", "--config", "container/hadolint.yaml", "container/Containerfile", cwd=DEPLOY)


def container_builds() -> Iterator[str]:
    """The container file, by a build."""
    docker = tool("docker", "docker.io")
    if subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        raise NotHere("no container engine runs here, so the image was not built")
    yield from run(docker, "build", "--file", str(DEPLOY / "container/Containerfile"), ".")


def chart_lint() -> Iterator[str]:
    """The chart, as `helm lint --strict` would; and its schema refuses what it should."""
    for name, values in VALUES.items():
        report = helm.lint(CHART, values, strict=True)
        yield from (f"{name}: {finding}" for finding in report["messages"] if finding["severity"] > 1)
        yield from report["errors"]
    with helm.Chart.load(CHART) as chart:
        for values in WRONG_VALUES:
            try:
                chart.validate_schema(values)
            except helm.HelmValuesError:
                continue
            yield f"the schema accepts {values}"


def chart_manifests() -> Iterator[str]:
    """What the chart renders, against the schemas of Kubernetes, oldest and newest."""
    kinds = set()
    for name, text in rendered():
        for document in filter(None, yaml.safe_load_all(text)):
            kinds.add(document["kind"])
            if document["kind"] == "ServiceMonitor":
                continue  # a resource of the Prometheus operator: Kubernetes has no schema of it
            for version in (OLDEST_KUBERNETES, kubernetes_validate.latest_version()):
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    yield f"{name} ({version}): {error}"
    expected = {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    yield from (f"no {kind} is rendered" for kind in expected - kinds)


def chart_probes() -> Iterator[str]:
    """Liveness asks /healthz, readiness /readyz, over TLS where there is a certificate."""
    for name, text in rendered():
        if not name.endswith("deployment.yaml"):
            continue
        container = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0]
        asked = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
        paths = {probe: get["path"] for probe, get in asked.items()}
        if paths != {"startup": "/readyz", "liveness": "/healthz", "readiness": "/readyz"}:
            yield f"{name}: {paths}"
        scheme = "HTTPS" if name.startswith("all") else "HTTP"
        if {get["scheme"] for get in asked.values()} != {scheme}:
            yield f"{name}: the probes do not use {scheme}"


def arguments() -> Iterator[str]:
    """`fulmen serve` knows every argument that the chart, the unit and the container file give it."""
    given: dict[str, list[str]] = {}
    for name, text in rendered():
        if name.endswith("deployment.yaml"):
            given[name] = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0]["args"]
    environment = (DEPLOY / "systemd/fulmen.env").read_text().splitlines()
    [line] = [line for line in environment if line.startswith("FULMEN_ARGUMENTS=")]
    given["fulmen.env"] = line.partition("=")[2].split()
    lines = (DEPLOY / "container/Containerfile").read_text().splitlines()
    entry, command = (json.loads(line.partition(" ")[2]) for line in lines if line.startswith(("ENTRYPOINT ", "CMD ")))
    given["Containerfile"] = entry[2:] + command
    for name, words in given.items():
        done = subprocess.run(["fulmen", "serve", *words, "--port", "0"], capture_output=True, text=True, check=False)
        # the model is not here, which is found only after all arguments were understood
        if done.returncode != 2 or not any(what in done.stderr for what in ("does not exist", "cannot be read")):
            yield f"{name}: {done.stderr.strip()}"


def yaml_style() -> Iterator[str]:
    """The YAML files that are no templates."""
    files = [path for path in DEPLOY.rglob("*.yaml") if path.parent.name != "templates"]
    yield from run("yamllint", "-d", YAMLLINT, *map(str, files))


def unit() -> Iterator[str]:
    """The unit, by systemd itself, and how exposed it leaves the service."""
    analyze = tool("systemd-analyze", "systemd")
    text = (DEPLOY / "systemd/fulmen.service").read_text()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "fulmen.service")  # whose program exists
        copy.write_text(text.replace("/opt/fulmen/bin/fulmen", str(shutil.which("fulmen"))))
        yield from run(analyze, "verify", str(copy))
        threshold = f"--threshold={round(MAX_EXPOSURE * 10)}"
        yield from run(analyze, "security", "--offline=yes", threshold, str(copy))


def alerts() -> Iterator[str]:
    """The alerts, by Prometheus's own checker and tests."""
    promtool = tool("promtool", "prometheus")
    folder = DEPLOY / "prometheus"
    yield from run(promtool, "check", "rules", "--lint-fatal", "fulmen-alerts.yaml", cwd=folder)
    yield from run(promtool, "test", "rules", "fulmen-alerts.test.yaml", cwd=folder)


CHECKS: list[Callable[[], Iterator[str]]] = [
    *(container, container_builds, chart_lint, chart_manifests, chart_probes),
    *(arguments, yaml_style, unit, alerts),
]


def main() -> int:
    """Run every check; 1 if one found a fault."""
    at_fault = False
    for check in CHECKS:
        try:
            faults = list(check())
        except NotHere as reason:
            print(f"not run   {check.__name__}: {reason}")
            continue
        print(f"{'at fault' if faults else 'good'}  ".ljust(10) + f"{check.__name__}: {check.__doc__}")
        for fault in faults:
            print("    " + fault.replace("\n", "\n    "))
        at_fault = at_fault or bool(faults)
    return int(at_fault)


if __name__ == "__main__":
    sys.exit(main())
