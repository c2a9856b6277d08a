"""What this distribution registers: a backend that serves engines, and the exporters that build them. Light."""

from __future__ import annotations

from functools import partial

from fulmen_backend_tensorrt.products import PRODUCTS, Product
from fulmen_core.descriptors import Availability, BackendInfo, ExporterInfo
from fulmen_core.hooks import hookimpl
from fulmen_core.installed import all_installed

_EXPORT = ("torch", "safetensors", "onnx", "onnxruntime")


def probe_runtime() -> Availability:
    """Whether a TensorRT is installed, and a GPU there to run its engines on."""
    from fulmen_backend_tensorrt.devices import find_devices

    versions = {product.distribution: found for product in PRODUCTS.values() if (found := product.installed())}
    if not versions:
        ways = ", or ".join(f"{product.remedy} for {product.title}" for product in PRODUCTS.values())
        return Availability(ok=False, reason=f"neither TensorRT-RTX nor TensorRT is installed: {ways}")
    seen = find_devices()
    if not seen.devices:
        return Availability(ok=False, reason=seen.reason, versions=versions)
    names = tuple(f"{device.name} (compute capability {device.compute_capability})" for device in seen.devices)
    return Availability(ok=True, devices=names, versions=versions)


def probe_export(product: Product) -> Availability:
    """Whether everything is installed that writing, building and checking an artefact takes, and a GPU if it must."""
    remedy = f"pip install 'fulmen-backend-tensorrt[{product.extra},export]'"
    tools = all_installed(*_EXPORT, product.distribution, remedy=remedy)
    if not tools.ok or product.ahead_of_time:
        return tools.also(Availability(ok=True, devices=("cpu",)))
    from fulmen_backend_tensorrt.devices import find_devices

    seen = find_devices()
    reason = "" if seen.devices else f"{product.title} builds on the GPU it builds for, and {seen.reason}"
    reason += " (tensorrt-rtx needs none)" if reason else ""
    return tools.also(Availability(ok=not reason, reason=reason, devices=tuple(one.name for one in seen.devices)))


@hookimpl
def fulmen_backends() -> list[BackendInfo]:
    """TensorRT, after the backends that load checkpoints: it needs an exported artefact, and a GPU."""
    return [
        BackendInfo(
            "tensorrt",
            "serves TensorRT engines on an NVIDIA GPU, without PyTorch",
            probe_runtime,
            "fulmen_backend_tensorrt.backend:TensorRTBackend",
            priority=-20,
        )
    ]


@hookimpl
def fulmen_exporters() -> list[ExporterInfo]:
    """The formats "tensorrt-rtx" and "tensorrt"."""
    rtx, datacenter = PRODUCTS["tensorrt-rtx"], PRODUCTS["tensorrt"]
    return [
        ExporterInfo(
            rtx.format,
            "engines for RTX GPUs, built ahead of time, without one",
            partial(probe_export, rtx),
            "fulmen_backend_tensorrt.exporter:rtx_exporter",
        ),
        ExporterInfo(
            datacenter.format,
            "engines for the GPU of this machine",
            partial(probe_export, datacenter),
            "fulmen_backend_tensorrt.exporter:tensorrt_exporter",
        ),
    ]
