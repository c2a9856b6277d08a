"""Builds engines in child processes: what a builder does to its process, a segmentation fault included, is one error.

Torch-free.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fulmen_backend_tensorrt.artefact import TIMING_FILE, Phase
from fulmen_backend_tensorrt.engine_spec import EngineSpec, write_spec
from fulmen_backend_tensorrt.products import Product
from fulmen_core.errors import CapabilityError, UserError


class BuildError(UserError):
    """TensorRT gave no engine, or its builder crashed."""


def build_engine(product: Product, spec: EngineSpec, phase: Phase, folder: Path) -> float:
    """Build the engine of the graph in `folder` beside it, and return the seconds it took.

    The engine gets its name when it is whole; the timing cache of the folder is used and renewed.

    Raises:
        BuildError: the builder refused the graph, or crashed.
    """
    with TemporaryDirectory(prefix=".build-", dir=folder) as name:
        work = Path(name)
        for file in folder.iterdir():
            if file.is_file():
                (work / file.name).symlink_to(file.resolve())  # the graph refers to its weights by name
        write_spec(spec, work / "spec.json")
        timing = work / "timing"
        if (folder / TIMING_FILE).is_file():
            shutil.copyfile(folder / TIMING_FILE, timing)
        result = _run_child(product, spec, work / "spec.json", work / "engine", timing)
        (work / "engine").replace(folder / spec.engine_file(phase))
        if timing.stat().st_size:
            timing.replace(folder / TIMING_FILE)
    return float(result["seconds"])


def _run_child(product: Product, spec: EngineSpec, path: Path, engine: Path, timing: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{__package__}.build_process", str(path), str(engine), str(timing)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    where = f"{spec.graph} for {' and '.join(spec.compute_capabilities) or 'every device from Ampere on'}"
    what = f"{product.title} {spec.version} cannot build {where}"
    if done.returncode < 0:
        crash = signal.Signals(-done.returncode).name
        raise BuildError(f"{what}: its builder crashed ({crash})", remedy=_last_words(done.stderr))
    try:
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise BuildError(what, remedy=_last_words(done.stderr)) from None
    if "error" in result:
        raise BuildError(what, remedy=str(result["error"]))
    return result


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing; try --dtype float16, or another version of it"


def check_capabilities(product: Product, module: Any, wanted: tuple[str, ...], present: tuple[str, ...]) -> None:
    """Refuse compute capabilities that the product cannot build for here.

    Args:
        product: that builds.
        module: its bindings.
        wanted: by the user.
        present: of the devices of this machine.

    Raises:
        CapabilityError: the first that cannot be.
    """
    if product.ahead_of_time:
        known = sorted(
            (f"{name[2:-1]}.{name[-1]}" for name in module.ComputeCapability.__members__ if name.startswith("SM")),
            key=lambda text: tuple(map(int, text.split("."))),
        )
        for capability in wanted:
            if capability not in known:
                raise CapabilityError(
                    f"{product.title} {module.__version__} builds nothing for compute capability {capability}",
                    remedy=f"it knows {', '.join(known)}",
                )
        return
    for capability in wanted or ("",):
        if not present or (capability and capability not in present):
            raise CapabilityError(
                f"{product.title} builds on the GPU it builds for, and "
                + (f"none here has compute capability {capability}" if present else "there is none here"),
                remedy="export on the machine that is to serve, or --to tensorrt-rtx, which builds ahead of time",
            )


def check_fp8(capabilities: tuple[str, ...]) -> None:
    """Refuse products of 8-bit floats for devices that have none: they came with compute capability 8.9.

    Raises:
        CapabilityError: the first such device; or none is stated, and Ampere's would be among them.
    """
    older = [capability for capability in capabilities or ("8.0",) if float(capability) < 8.9]
    if older:
        raise CapabilityError(
            f"FP8 needs compute capability 8.9 or later, and {older[0]} has no products of 8-bit floats",
            remedy="state --compute-capability 8.9 or later, or choose --quantize int8",
        )
