"""Opening a graph with ONNX Runtime, and binding memory to its values. NumPy's, so that nothing is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.huge_pages import backing_new_memory
from fulmen_core.errors import CorruptArtefact

PROVIDER = "CPUExecutionProvider"


def open_session(graph: Path, threads: int) -> Any:
    """A session over the graph on the CPU, with `threads` threads (0: ONNX Runtime's choice).

    Raises:
        CorruptArtefact: ONNX Runtime cannot load the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised; printing them, too, would say everything twice
    try:
        with backing_new_memory():
            return onnxruntime.InferenceSession(graph, options, providers=[PROVIDER])
    except Exception as error:  # its exceptions share no base class of their own
        reason = " ".join(str(error).split())
        raise CorruptArtefact("ONNX Runtime cannot load the graph", where=str(graph), remedy=reason) from error


def provider_reason() -> str:
    """Why the CPU computes, of the devices that this ONNX Runtime can use."""
    others = [name for name in onnxruntime.get_available_providers() if name != PROVIDER]
    if not others:
        return f"onnxruntime {onnxruntime.__version__} has no other"
    return f"the graph's operators and caches are made for it; {', '.join(others)} would copy caches at every step"


def bind(bind_value: Any, name: str, array: NDArray[Any]) -> None:
    """Bind a value of the graph to an array's memory; `bind_value` is `bind_input` or `bind_output` of a binding."""
    bind_value(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
