"""The GPUs of this machine, or exactly why there are none to be seen. Torch-free."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU. `compute_capability` is e.g. "8.9"."""

    name: str
    compute_capability: str


@dataclass(frozen=True, slots=True)
class Devices:
    """What was found; `reason` says why nothing was."""

    devices: tuple[Device, ...] = ()
    reason: str = ""


def find_devices() -> Devices:
    """Ask the CUDA runtime."""
    try:
        cudart = importlib.import_module("cuda.bindings.runtime")
    except ImportError:
        return Devices(reason="cuda-bindings is not installed: pip install 'fulmen-backend-tensorrt[rtx]'")
    error, count = cudart.cudaGetDeviceCount()
    if error != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(error)
        return Devices(reason=f"there is no GPU that CUDA can use: cudaError {int(error)}, {text.decode()}")
    devices = []
    for index in range(count):
        error, properties = cudart.cudaGetDeviceProperties(index)
        if error == cudart.cudaError_t.cudaSuccess:
            capability = f"{properties.major}.{properties.minor}"
            devices.append(Device(properties.name.split(b"\0")[0].decode(), capability))
    return Devices(tuple(devices), "" if devices else "CUDA sees no GPU")
