"""What the NVIDIA driver of this machine says of its GPUs, asked without PyTorch: listing backends has to stay cheap.

The calls are those of the CUDA driver API (docs.nvidia.com/cuda/cuda-driver-api); they create no context and take no
memory of a GPU. The driver itself honours CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import ctypes
import sys
from typing import NamedTuple

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_ATTRIBUTES = (75, 76, 16)  # of CUdevice_attribute: capability major, minor, multiprocessors


class DriverUnavailable(Exception):
    """There is no GPU to be had; the message says why and what to do."""


class Gpu(NamedTuple):
    """One GPU: its name, compute capability (major, minor), multiprocessors, and memory in bytes."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int


class Driver(NamedTuple):
    """The newest CUDA version that the driver runs, and the GPUs in the order of their numbers, at least one."""

    cuda_version: str
    gpus: tuple[Gpu, ...]


def ask_driver(library: str = LIBRARY) -> Driver:
    """Ask the driver in the shared library of that name.

    Raises:
        DriverUnavailable: there is no driver, it does not start, or it finds no GPU.
    """
    try:
        api = ctypes.CDLL(library)
    except OSError as error:
        raise DriverUnavailable(f"there is no NVIDIA driver ({error}): install the driver of your GPU") from error
    _call(api, "cuInit", 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    _call(api, "cuDriverGetVersion", ctypes.byref(version))
    _call(api, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise DriverUnavailable("the NVIDIA driver finds no GPU: see what nvidia-smi and CUDA_VISIBLE_DEVICES say")
    gpus = tuple(_describe(api, number) for number in range(count.value))
    return Driver(f"{version.value // 1000}.{version.value % 1000 // 10}", gpus)


def _describe(api: ctypes.CDLL, number: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _call(api, "cuDeviceGet", ctypes.byref(device), number)
    _call(api, "cuDeviceGetName", name, len(name), device)
    _call(api, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    values = []
    for attribute in _ATTRIBUTES:
        value = ctypes.c_int()
        _call(api, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        values.append(value.value)
    major, minor, multiprocessors = values
    return Gpu(name.value.decode(errors="replace"), (major, minor), multiprocessors, memory.value)


def _call(api: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = getattr(api, function)(*arguments)
    if code == 0:
        return
    text = ctypes.c_char_p()
    known = api.cuGetErrorString(code, ctypes.byref(text)) == 0 and text.value
    words = text.value.decode(errors="replace") if known and text.value else "unknown error"
    raise DriverUnavailable(
        f"the NVIDIA driver does not run ({function}: error {code}, {words}): see what nvidia-smi says"
    )
