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
    return Availability(ok=True, devices=("cpu",), versions={"torch": found})


@hookimpl
def fulmen_backends() -> list[BackendInfo]:
    """The CPU, with priority 0: `auto` takes it when nothing faster is there."""
    return [
        BackendInfo(
            "cpu",
            "training and serving on the CPU with PyTorch",
            probe,
            "fulmen_backend_cpu.backend:CpuBackend",
        )
    ]
