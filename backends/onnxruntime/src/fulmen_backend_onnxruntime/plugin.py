"""What this distribution registers: a backend that serves ONNX artefacts and an exporter that writes them. Light."""

from __future__ import annotations

from fulmen_core.descriptors import Availability, BackendInfo, ExporterInfo
from fulmen_core.hooks import hookimpl
from fulmen_core.installed import all_installed, versions_of

#: The first in which GroupQueryAttention can be told how many tokens of each sequence are no padding.
_OLDEST = (1, 32)
#: Builds of it, any of which holds the CPU's kernels; at most one can be installed.
_BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_REMEDY = "pip install 'fulmen-backend-onnxruntime[cpu]'"


def probe_runtime() -> Availability:
    """Whether an ONNX Runtime is installed that has the operators of our graphs."""
    found = versions_of(*_BUILDS)
    if not found:
        return Availability(ok=False, reason=f"ONNX Runtime is not installed: {_REMEDY}")
    build, number = next(iter(found.items()))
    major, minor = (int(part) for part in number.split(".")[:2])
    if (major, minor) < _OLDEST:
        return Availability(ok=False, reason=f"{build} {number} is too old: {_REMEDY}", versions=found)
    return Availability(ok=True, devices=("cpu",), versions=found)


def probe_export() -> Availability:
    """Whether everything is installed that writing and checking an artefact takes."""
    remedy = "pip install 'fulmen-backend-onnxruntime[export]'"
    return all_installed("torch", "safetensors", "onnx", remedy=remedy).also(probe_runtime())


@hookimpl
def fulmen_backends() -> list[BackendInfo]:
    """ONNX Runtime, after the backends that load checkpoints: it needs an exported artefact."""
    return [
        BackendInfo(
            "onnxruntime",
            "serves ONNX artefacts with ONNX Runtime, without PyTorch",
            probe_runtime,
            "fulmen_backend_onnxruntime.backend:OnnxRuntimeBackend",
            priority=-10,
        )
    ]


@hookimpl
def fulmen_exporters() -> list[ExporterInfo]:
    """The format "onnx"."""
    return [
        ExporterInfo(
            "onnx",
            "ONNX for ONNX Runtime: prefill and decode in one graph",
            probe_export,
            "fulmen_backend_onnxruntime.exporter:OnnxExporter",
        )
    ]
