"""What the CPU backend registers. Light: torch is imported when the backend is picked."""

from __future__ import annotations

from fulmen_core.descriptors import Availability, BackendInfo
from fulmen_core.hooks import hookimpl


def probe() -> Availability:
    """Whether PyTorch is installed; found by name, not imported, so that listing backends stays cheap."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("torch")
    except PackageNotFoundError:
        return Availability(ok=False, reason="PyTorch is not installed: pip install 'fulmen-backend-cpu'")
    return Availability(ok=True, devices=("cpu",), versions={"torch": found, "native kernels": _native()})


def _native() -> str:
    """What the serving runner will be compiled with, or why it will be PyTorch's; compiles nothing."""
    from fulmen_backend_cpu.native_sources import SERVING
    from fulmen_core.native_build import NativeUnavailable, find_compiler, is_built

    try:
        compiler = find_compiler()
    except NativeUnavailable as error:
        return f"no, serving on PyTorch: {error}"
    return f"by {compiler.version}, {'compiled' if is_built(SERVING, compiler) else 'compiled at first use'}"


@hookimpl
def fulmen_backends() -> list[BackendInfo]:
    """The CPU, with priority 0: `auto` takes it when nothing faster is there."""
    return [
        BackendInfo(
            "cpu",
            "training and serving on the CPU with PyTorch",
            probe,
            "fulmen_backend_cpu.backend:CpuBackend",
            threads="fulmen_backend_cpu.threads:run_on",
        )
    ]
