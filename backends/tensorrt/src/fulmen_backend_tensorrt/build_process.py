"""Builds one engine. Runs as a process of its own, as a fault of the builder ends the process it happens in.

    python -m fulmen_backend_tensorrt.build_process SPEC ENGINE TIMING_CACHE

SPEC is an `EngineSpec` as JSON; its graph lies beside it. The last line on stdout is JSON: ``{"seconds", "bytes"}`` or
``{"error"}``; exit code 1 with an error.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from fulmen_backend_tensorrt.engine_spec import EngineSpec
from fulmen_backend_tensorrt.trt_log import make_log


class _Refused(Exception):
    """The builder gave no engine; the message is what it said."""


def build(spec: EngineSpec, folder: Path, target: Path, timing: Path) -> dict[str, Any]:
    """Parse the graph in `folder`, build the engine, and write it and what was measured."""
    trt = importlib.import_module(spec.module)
    log = make_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(folder / spec.graph)):
        faults = (parser.get_error(index) for index in range(parser.num_errors))
        said = (f"{fault.node_operator()} {fault.node_name()}: {fault.desc()}" for fault in faults)
        raise _Refused("; ".join(said) or "the parser gave no reason")
    _let_attention_decompose(trt, network)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # routers compute in float32 because less ranks other experts first
    if spec.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if spec.compute_capabilities and hasattr(config, "num_compute_capabilities"):
        config.num_compute_capabilities = len(spec.compute_capabilities)
        for index, capability in enumerate(spec.compute_capabilities):
            wanted = getattr(trt.ComputeCapability, "SM" + capability.replace(".", ""))
            if not config.set_compute_capability(wanted, index):
                raise _Refused(f"compute capability {capability} is refused")
    profile = builder.create_optimization_profile()
    for name, shapes in spec.profile.items():
        profile.set_shape(name, shapes.smallest, shapes.usual, shapes.largest)
    if config.add_optimization_profile(profile) < 0:
        raise _Refused(log.faults())
    cache = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
    config.set_timing_cache(cache, False)
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _Refused(log.faults())
    target.write_bytes(memoryview(plan))
    timing.write_bytes(memoryview(config.get_timing_cache().serialize()))
    return {"seconds": round(time.monotonic() - started, 2), "bytes": plan.nbytes}


def _let_attention_decompose(trt: Any, network: Any) -> None:
    """Let attention be built of other operations where there is no kernel for it: float32, say, or narrow heads."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer  # the bindings' way to a layer's own attributes
            layer.attention.decomposable = True


def main(spec: str, engine: str, timing: str) -> int:
    """Build, and say how it went."""
    path = Path(spec)
    try:
        result = build(EngineSpec.model_validate_json(path.read_text()), path.parent, Path(engine), Path(timing))
    except (_Refused, AttributeError, RuntimeError, OSError) as error:
        result = {"error": f"{error}"}
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    return int("error" in result)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
