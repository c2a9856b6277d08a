"""The few calls of the CUDA runtime that serving takes: memory, one stream, and graphs of what was enqueued on it.

Addresses are integers, as the bindings of TensorRT take them.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class CudaError(RuntimeError):
    """A call of the CUDA runtime failed."""


class Cuda:
    """One device, one stream, and all that was allocated with it.

    Raises:
        CudaError: by every method, with the name of the call and CUDA's own words.
    """

    def __init__(self, device: int = 0) -> None:
        self._cudart: Any = importlib.import_module("cuda.bindings.runtime")
        cudart = self._cudart
        self._memory: list[int] = []
        self._pinned: list[int] = []
        self._call(cudart.cudaSetDevice, device)
        self._stream = self._call(cudart.cudaStreamCreateWithFlags, cudart.cudaStreamNonBlocking)

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return int(self._stream)

    def allocate(self, nbytes: int) -> int:
        """Device memory, zeroed: what a mask hides must still be a number."""
        cudart = self._cudart
        address = int(self._call(cudart.cudaMalloc, max(1, nbytes)))
        self._memory.append(address)
        self._call(cudart.cudaMemset, address, 0, max(1, nbytes))
        return address

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of the host that can be copied asynchronously."""
        cudart = self._cudart
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._call(cudart.cudaHostAlloc, max(1, nbytes), cudart.cudaHostAllocDefault))
        self._pinned.append(address)
        memory: Any = (ctypes.c_byte * max(1, nbytes)).from_address(address)
        array: NDArray[Any] = np.frombuffer(memory, dtype, int(np.prod(shape))).reshape(shape)
        return array

    def upload(self, target: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array of the host to the device, and wait."""
        cudart = self._cudart
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(cudart.cudaMemcpy, target, array.ctypes.data, array.nbytes, kind)

    def enqueue_upload(self, target: int, source: NDArray[Any], nbytes: int) -> None:
        """Enqueue a copy of the first bytes of a pinned array to the device."""
        cudart = self._cudart
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(cudart.cudaMemcpyAsync, target, source.ctypes.data, nbytes, kind, self._stream)

    def enqueue_download(self, target: NDArray[Any], source: int, nbytes: int) -> None:
        """Enqueue a copy from the device to the first bytes of a pinned array."""
        cudart = self._cudart
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(cudart.cudaMemcpyAsync, target.ctypes.data, source, nbytes, kind, self._stream)

    def enqueue_copy(self, target: int, source: int, nbytes: int) -> None:
        """Enqueue a copy within the device."""
        cudart = self._cudart
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call(cudart.cudaMemcpyAsync, target, source, nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """Wait until all that was enqueued is done."""
        self._call(self._cudart.cudaStreamSynchronize, self._stream)

    def record(self, enqueue: Callable[[], None]) -> Any:
        """A graph of what `enqueue` puts on the stream, which is recorded and not run."""
        cudart = self._cudart
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(cudart.cudaStreamBeginCapture, self._stream, mode)
        try:
            enqueue()
        finally:
            graph = self._call(cudart.cudaStreamEndCapture, self._stream)
        try:
            return self._call(cudart.cudaGraphInstantiate, graph, 0)
        finally:
            self._call(cudart.cudaGraphDestroy, graph)

    def replay(self, graph: Any) -> None:
        """Enqueue a recorded graph."""
        self._call(self._cudart.cudaGraphLaunch, graph, self._stream)

    def forget(self, graph: Any) -> None:
        """Give a recorded graph back."""
        self._call(self._cudart.cudaGraphExecDestroy, graph)

    def close(self) -> None:
        """Give all back. Idempotent; arrays of `pinned` must not be touched afterwards."""
        cudart = self._cudart
        while self._memory:
            self._call(cudart.cudaFree, self._memory.pop())
        while self._pinned:
            self._call(cudart.cudaFreeHost, self._pinned.pop())
        if self._stream is not None:
            self._call(cudart.cudaStreamDestroy, self._stream)
            self._stream = None

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        error, *results = function(*arguments)
        if int(error):
            _, text = self._cudart.cudaGetErrorString(error)
            raise CudaError(f"{function.__name__}: cudaError {int(error)}, {text.decode()}")
        return results[0] if results else None
