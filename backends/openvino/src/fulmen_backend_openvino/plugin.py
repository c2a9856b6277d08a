"""What this distribution registers: a backend that serves OpenVINO artefacts and an exporter of them. Light."""

from __future__ import annotations

from fulmen_core.descriptors import Availability, BackendInfo, ExporterInfo
from fulmen_core.hooks import hookimpl
from fulmen_core.installed import all_installed, versions_of

#: The paged attention operator changes its operands from release to release; these have the ones we give.
_RELEASE = (2026, 4)
_REMEDY = "pip install 'fulmen-backend-openvino[cpu]'"


def probe_runtime() -> Availability:
    """Whether an OpenVINO is installed that has the operators of our graphs."""
    found = versions_of("openvino")
    if not found:
        return Availability(ok=False, reason=f"OpenVINO is not installed: {_REMEDY}")
    major, minor = (int(part) for part in found["openvino"].split(".")[:2])
    if (major, minor) != _RELEASE:
        known = ".".join(map(str, _RELEASE))
        return Availability(ok=False, reason=f"OpenVINO {found['openvino']} is not {known}: {_REMEDY}")
    return Availability(ok=True, devices=("cpu",), versions=found)


def probe_export() -> Availability:
    """Whether everything is installed that writing and checking an artefact takes."""
    remedy = "pip install 'fulmen-backend-openvino[export]'"
    return all_installed("torch", "safetensors", remedy=remedy).also(probe_runtime())


@hookimpl
def fulmen_backends() -> list[BackendInfo]:
    """OpenVINO, after the backends that load checkpoints: it needs an exported artefact."""
    return [
        BackendInfo(
            "openvino",
            "serves OpenVINO artefacts on CPUs, without PyTorch",
            probe_runtime,
            "fulmen_backend_openvino.backend:OpenVinoBackend",
            priority=-20,
        )
    ]


@hookimpl
def fulmen_exporters() -> list[ExporterInfo]:
    """The format "openvino"."""
    return [
        ExporterInfo(
            "openvino",
            "OpenVINO IR: prefill and decode in one graph, as optimum-intel names it",
            probe_export,
            "fulmen_backend_openvino.exporter:OpenVinoExporter",
        )
    ]
