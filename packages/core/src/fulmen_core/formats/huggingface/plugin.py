"""What core itself registers: the exporter of Hugging Face folders. Light: torch is imported when it is used."""

from __future__ import annotations

from importlib.util import find_spec

from fulmen_core.descriptors import Availability, ExporterInfo
from fulmen_core.hooks import hookimpl


def probe() -> Availability:
    """Whether torch and safetensors are installed."""
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    if missing:
        return Availability(ok=False, reason=f"{', '.join(missing)} not installed: pip install 'fulmen-core[model]'")
    return Availability(ok=True)


@hookimpl
def fulmen_exporters() -> list[ExporterInfo]:
    """The format "huggingface"."""
    return [
        ExporterInfo(
            "huggingface",
            "a folder that transformers loads: Llama, Mistral, Qwen3, Mixtral, OLMoE, Qwen3-MoE, AFMoE",
            probe,
            "fulmen_core.formats.huggingface.exporter:HuggingFaceExporter",
        )
    ]
