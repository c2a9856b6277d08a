"""What the CUDA backend registers. Light: neither PyTorch nor Triton is imported before the backend is picked."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fulmen_backend_cuda.driver import LIBRARY, DriverUnavailable, ask_driver
from fulmen_backend_cuda.support import why_no_fp8, why_too_old
from fulmen_core.descriptors import Availability, BackendInfo
from fulmen_core.hooks import hookimpl

_GIB = 1 << 30


def probe(library: str = LIBRARY) -> Availability:
    """Whether PyTorch is built for CUDA, a driver runs, and GPU 0 is new enough; `library` is the driver's."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("torch")
    except PackageNotFoundError:
        return Availability(ok=False, reason="PyTorch is not installed: pip install 'fulmen-backend-cuda'")
    versions = {"torch": found}
    if not built_for_cuda():
        reason = f"PyTorch {found} is built without CUDA: install a build with it (pytorch.org/get-started)"
        return Availability(ok=False, reason=reason, versions=versions)
    try:
        driver = ask_driver(library)
    except DriverUnavailable as error:
        return Availability(ok=False, reason=str(error), versions=versions)
    versions["driver"] = f"CUDA {driver.cuda_version}"
    devices = tuple(
        f"cuda:{number} {gpu.name}, compute capability {gpu.capability[0]}.{gpu.capability[1]}, "
        f"{gpu.memory_bytes / _GIB:.0f} GiB"
        for number, gpu in enumerate(driver.gpus)
    )
    first = driver.gpus[0]
    if reason := why_too_old(first.name, first.capability):
        return Availability(ok=False, reason=reason, devices=devices, versions=versions)
    versions["8-bit floats"] = why_no_fp8(first.name, first.capability) or "yes"
    versions["triton"] = "yes" if find_spec("triton") else "no: decoding and window masks run on PyTorch, slower"
    return Availability(ok=True, devices=devices, versions=versions)


def built_for_cuda() -> bool:
    """Whether the installed PyTorch has its CUDA library; looked up, not loaded."""
    spec = find_spec("torch")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    names = ("libtorch_cuda.so", "torch_cuda.dll")
    return any((Path(folder) / "lib" / name).exists() for folder in folders for name in names)


@hookimpl
def fulmen_backends() -> list[BackendInfo]:
    """NVIDIA GPUs, before the CPU: `auto` takes them where they are."""
    return [
        BackendInfo(
            "cuda",
            "training and serving on NVIDIA GPUs with PyTorch",
            probe,
            "fulmen_backend_cuda.backend:CudaBackend",
            priority=50,
        )
    ]
