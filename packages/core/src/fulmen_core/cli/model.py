"""`fulmen model show`: the sizes of a preset or of a model directory, by arithmetic alone: no torch, no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fulmen_core.cli import arguments
from fulmen_core.cli.output import print_json, print_table
from fulmen_core.errors import UserError

_ELEMENT_BYTES = 2  # K and V are kept in bfloat16


def run(argv: Sequence[str]) -> int:
    """Run ``fulmen model show``."""
    parser = arguments.parser(
        "fulmen model", "show a model's layers, its parameters, and the KV memory of one sequence", recipe=False
    )
    parser.add_argument("action", choices=["show"])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--preset", help="a named size: nano, small, lite, lightning")
    source.add_argument("--model", type=Path, metavar="DIR", help="a model directory; only its config.json is read")
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens to count KV memory at; default: the model's most"
    )
    args = parser.parse_args(argv)
    summary = describe(_config(args.preset, args.model), args.context)
    if args.json:
        print_json(summary)
    else:
        _print(summary)
    return 0


def describe(config: Any, context: int | None = None) -> dict[str, Any]:
    """The sizes of a `ModelConfig` at `context` tokens (None: the most it is made for), as `--json` prints them.

    Bytes of K and V are of one sequence in bfloat16; `kv_reduction` is against full attention without sharing.

    Raises:
        UserError: the context is not positive.
    """
    from fulmen_core.model import parameters
    from fulmen_core.model.kv import CacheSpec, kv_reduction
    from fulmen_core.model.layer_plan import LayerPlan

    context = config.max_position_embeddings if context is None else context
    if context < 1:
        raise UserError(f"a context of {context} tokens holds nothing", remedy="choose at least 1")
    layers: list[dict[str, Any]] = []
    for layer in LayerPlan.of(config):
        total, active = parameters.layer_parameters(config, layer)
        layers.append(
            {
                "index": layer.index,
                "attention": "full" if layer.window is None else "window",
                "window": layer.window,
                "kv_source": layer.kv_source,
                "cache": layer.cache,
                "ffn": layer.ffn,
                "parameters": total,
                "parameters_active": active,
            }
        )
    return {
        "parameters_total": parameters.parameters_total(config),
        "parameters_active": parameters.parameters_active(config),
        "context": context,
        "kv_reduction": kv_reduction(config, context),
        "kv_bytes": CacheSpec.of(config).bytes_per_sequence(context, _ELEMENT_BYTES),
        "kv_dtype": "bfloat16",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "max_position_embeddings": config.max_position_embeddings,
        "layers": layers,
    }


def _config(preset: str | None, directory: Path | None) -> Any:
    from fulmen_core.cli.model_source import model_directory
    from fulmen_core.model.config_file import load_config
    from fulmen_core.model.presets import load_preset

    if preset is not None:
        return load_preset(preset)
    assert directory is not None  # the parser requires one of the two
    return load_config(model_directory(directory))


def _print(summary: dict[str, Any]) -> None:
    columns = ("layers", "attention", "reads K, V of", "cache", "FFN", "parameters", "active")
    print_table(columns, (_row(layer) for layer in summary["layers"]), empty="no layers")
    print(
        f"parameters: {_short(summary['parameters_total'])} in total, "
        f"{_short(summary['parameters_active'])} active for a token"
    )
    print(
        f"KV memory: {summary['kv_bytes'] / 2**20:,.1f} MiB in {summary['kv_dtype']} for {summary['context']:,} tokens,"
        f" {summary['kv_reduction']:.2%} less than full attention without sharing"
    )


def _row(layer: dict[str, Any]) -> list[str]:
    window = "full" if layer["window"] is None else f"window {layer['window']}"
    source = "itself" if layer["kv_source"] == layer["index"] else f"layer {layer['kv_source']}"
    counts = (_short(layer["parameters"]), _short(layer["parameters_active"]))
    return [str(layer["index"]), window, source, str(layer["cache"]), layer["ffn"], *counts]


def _short(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return str(count)
