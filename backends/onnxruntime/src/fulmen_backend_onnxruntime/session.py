"""Opening a graph with ONNX Runtime, and binding memory to its values. NumPy's, so that nothing is copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.huge_pages import backing_new_memory
from fulmen_backend_onnxruntime.native_nodes import with_native_nodes
from fulmen_backend_onnxruntime.providers import CPU
from fulmen_core.errors import CapabilityError, CorruptArtefact


def open_session(
    graph: Path, threads: int, provider: str = CPU, *, operators: Path | None = None, packed: bool = True
) -> Any:
    """A session over the graph, with `threads` threads (0: ONNX Runtime's choice). It knows its nodes' providers.

    Args:
        graph: the file.
        threads: of the CPU.
        provider: the full name of the one that shall compute; what it cannot, the CPU does.
        operators: a library of operators, see `native_nodes`; None: ONNX Runtime's compute everything.
        packed: weights are packed for the kernels: to compute with them, not to look at the graph alone.

    Raises:
        CapabilityError: the provider does not start here, or cannot load the graph.
        CorruptArtefact: ONNX Runtime cannot load the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised; printing them, too, would say everything twice
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    model: Path | bytes = graph
    if operators is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
        model = with_native_nodes(graph.read_bytes())
    remedy = "choose another with --backend-option provider=NAME, or leave it out"
    try:
        if operators is not None:
            options.register_custom_ops_library(str(operators))
        with backing_new_memory():
            session = onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # its exceptions share no base class of their own
        reason = " ".join(str(error).split())
        if provider != CPU:
            raise CapabilityError(f"{provider} cannot load {graph}: {reason}", remedy=remedy) from error
        raise CorruptArtefact("ONNX Runtime cannot load the graph", where=str(graph), remedy=reason) from error
    if provider not in session.get_providers():  # it says so in its log alone, and goes on with the CPU
        raise CapabilityError(f"{provider} is installed but does not start on this machine", remedy=remedy)
    return session


def bind(bind_value: Any, name: str, array: NDArray[Any]) -> None:
    """Bind a value of the graph to an array's memory; `bind_value` is `bind_input` or `bind_output` of a binding."""
    bind_value(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
