"""The file beside a graph that holds its weights, written one tensor after the other, as an ONNX file ends at 2 GB."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

#: ONNX Runtime maps the file into memory; a tensor that begins with a page can be read where it lies.
_ALIGNMENT = 4096


class Place(NamedTuple):
    """Where a tensor lies in the file, in bytes."""

    offset: int
    length: int


class ExternalData:
    """A file of tensors that is being written. Only the tensor that is added need lie in memory."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = path.open("wb")
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, array: NDArray[Any]) -> Place:
        """Append `array`, C-contiguous and little-endian, as ONNX wants it."""
        array = np.ascontiguousarray(array)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        self._file.write(bytes(-self._end % _ALIGNMENT))
        self._end += -self._end % _ALIGNMENT
        place = Place(self._end, array.nbytes)
        self._file.write(array.data)
        self._end += array.nbytes
        return place
