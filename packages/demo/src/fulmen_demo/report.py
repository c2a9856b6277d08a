"""The report: one self-contained HTML file with every figure and plot of a journey."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from fulmen_core.model.checkpoint import load_config
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.kv import CacheSpec, kv_reduction
from fulmen_core.model.presets import load_preset
from fulmen_demo import plots
from fulmen_demo.config import DemoConfig
from fulmen_demo.road import ONNX, Journey
from fulmen_demo.summary import Claim
from fulmen_trainer.trackers import read_metrics

CONTEXTS = tuple(1024 * 2**power for power in range(7))  # 1K to 64K tokens
GB = 1e9


def expert_load_of(journey: Journey) -> NDArray[np.float64]:
    """Share of tokens of each expert in the last interval of pre-training, [layers, experts]; rows sum to 1."""
    last = read_metrics(journey.steps["base"].path / "metrics.jsonl")[-1]
    cells = {
        tuple(map(int, name.split("/")[1:])): value for name, value in last.items() if name.startswith("expert_load/")
    }
    layers, experts = (1 + max(place[axis] for place in cells) for axis in (0, 1))
    return np.array([[cells[layer, expert] / experts for expert in range(experts)] for layer in range(layers)])


def stage_rows(journey: Journey) -> list[dict[str, str]]:
    """One row for each stage: its name, a sentence of figures, its seconds."""
    measured = {name: artefact.measurements for name, artefact in journey.steps.items()}
    base, sft, reward, dpo = (measured[name] for name in ("base", "sft", "reward", "dpo"))
    stdlib = journey.data.statistics["stdlib"]
    documents = sum(statistics["documents"] for statistics in journey.data.statistics.values())
    redacted = sum(statistics["redacted"] for statistics in journey.data.statistics.values())
    dropped = sum(statistics["dropped"] for statistics in journey.data.statistics.values())
    duplicates = sum(statistics["duplicates"] for statistics in journey.data.statistics.values())
    rounds = [iteration["name"] for iteration in dpo["iterations"]]
    texts = {
        "data": f"{documents:,} documents kept; RAISE-1 redacted {redacted}, dropped {dropped}; "
        f"{duplicates} duplicates; "
        f"{stdlib['bytes_per_token']:.2f} bytes a token",
        "pre-training": f"{base['tokens'] / 1e6:.2f} M tokens, {base['parameters'] / 1e6:.1f} M parameters, "
        f"{base['heldout_bits_per_byte']:.3f} bits per byte held out (gzip -9: {base['gzip_bits_per_byte']:.3f})",
        "instructions": f"RAISE-2 kept {measured['instructions']['kept']:,} and dropped "
        f"{measured['instructions']['dropped']} conversations",
        "fine-tuning": f"{sft['tokens'] / 1e6:.2f} M tokens, loss {sft['loss']:.3f}",
        "preferences": f"{measured['preferences']['pairs']} pairs from answers of two checkpoints",
        "reward model": f"{reward['heldout_accuracy']:.1%} of {reward['heldout_pairs']} held-out pairs ranked right",
        "DPO": f"{', '.join(rounds)}; last margin {dpo['iterations'][-1]['reward_margin']:+.3f}",
        "evaluation": f"exact match {measured['evaluation']['sft']['exact_match']:.1%} after SFT, "
        f"{measured['evaluation']['dpo']['exact_match']:.1%} after DPO, over all tasks",
        "export": f"ONNX: largest logit difference {measured['export']['max_abs_diff']:.1e}",
        "guard": f"{measured['guard']['attacks_caught']} of {measured['guard']['attacks']} attacks caught; "
        f"{measured['guard']['verdict_ms']:.2f} ms a verdict",
    }
    seconds = _seconds(journey)
    return [{"name": name, "result": text, "seconds": f"{seconds[name]:.0f}"} for name, text in texts.items()]


def _seconds(journey: Journey) -> dict[str, float]:
    steps = {
        "base": "pre-training", "instructions": "instructions", "sft": "fine-tuning", "preferences": "preferences",
        "reward": "reward model", "dpo": "DPO", "evaluation": "evaluation", "export": "export", "guard": "guard",
    }  # fmt: skip
    totals = dict.fromkeys(["data", *steps.values()], 0.0)
    for name, seconds in journey.seconds.items():
        totals[steps.get(name, "data")] += seconds
    return totals


def render(
    config: DemoConfig,
    journey: Journey,
    summary: Mapping[str, Any],
    promises: Sequence[Claim],
    evaluation: Mapping[str, Any],
    guard: Mapping[str, Any],
) -> str:
    """Return the report as HTML."""
    template = (files("fulmen_demo") / "report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    reduction = kv_reduction(load_preset("lightning"), CONTEXTS[-1])
    return environment.from_string(template).render(
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        seconds_text=f"{summary['seconds'] / 60:.1f} minutes",
        configuration_hash=hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:12],
        tiles=promises,
        stages=stage_rows(journey),
        learning=[*_learning(config, journey), *_alignment(journey, evaluation), _kv_figure(journey, reduction)],
        samples=_samples(evaluation),
        continuations=evaluation["models"]["base"]["continuations"],
        guard_rows=_guard_rows(journey, guard),
        guard_plots=_guard_plots(guard),
        attack=guard["attack"],
        leak=guard["leak"],
        export_text=(
            f"The aligned model as ONNX, run by ONNX Runtime with its KV cache behind the same engine: largest "
            f"difference of float32 logits {summary['onnx_max_abs_diff']:.2e}, greedy tokens "
            f"{'equal' if summary['onnx_greedy_equal'] else 'NOT equal'}."
        ),
        next_steps=(
            f"fulmen chat --model {summary['model']}\n"
            f"fulmen serve --model {summary['model']} --port 8000\n"
            f"fulmen serve --model {journey.steps['export'].path / ONNX} --port 8000\n"
            f"fulmen runs show {config.run}"
        ),
    )


def _figure(svg: str, caption: str) -> dict[str, str]:
    return {"svg": svg, "caption": caption}


def _learning(config: DemoConfig, journey: Journey) -> list[dict[str, str]]:
    records = read_metrics(journey.steps["base"].path / "metrics.jsonl")
    steps = [record["step"] for record in records]
    shares = config.pretrain.stages.shares
    starts = [0.0, shares[0] * config.pretrain.steps, (shares[0] + shares[1]) * config.pretrain.steps]
    boundaries = list(zip(("initial", "middle", "decay"), starts, strict=True))
    measured = [(r["step"], r["heldout_bits_per_byte"]) for r in records if "heldout_bits_per_byte" in r]
    base = journey.steps["base"].measurements
    figures = [
        _figure(
            plots.curves(
                "Pre-training loss",
                "step",
                "nats per token",
                {"loss": (steps, [r["loss"] for r in records])},
                boundaries,
            ),
            "Loss over the three stages of one run. It moves at a boundary because the mixture does.",
        ),
        _figure(
            plots.curves(
                "Learning rate", "step", "learning rate", {"lr": (steps, [r["lr"] for r in records])}, boundaries
            ),
            "Warm-up and decay to half the peak; hold; fast decay over the last eighth of the tokens.",
        ),
        _figure(
            plots.expert_load(expert_load_of(journey)),
            "Expert load in the last interval of pre-training, relative to an even share.",
        ),
    ]
    if len(measured) > 1:
        x, y = zip(*measured, strict=True)
        level = ("gzip -9 on the same files", base["gzip_bits_per_byte"])
        figures.insert(
            1,
            _figure(
                plots.curves("Held-out bits per byte", "step", "bits per byte", {"model": (x, y)}, boundaries, level),
                "Bits per byte on the beginnings of files that were never trained on, the hardest part. Over the "
                f"whole files the model ends at {base['heldout_bits_per_byte']:.3f}.",
            ),
        )
    return figures


def _alignment(journey: Journey, evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    sft = read_metrics(journey.steps["sft"].path / "metrics.jsonl")
    reward = read_metrics(journey.steps["reward"].path / "metrics.jsonl")
    dpo = read_metrics(journey.steps["dpo"].path / "metrics.jsonl")
    margins: dict[str, tuple[list[float], list[float]]] = {}
    for record in dpo:
        x, y = margins.setdefault(str(record["iteration"]), ([], []))
        x.append(record["step"])
        y.append(record["reward_margin"])
    groups = {
        task: {name: model["by_task"][task] for name, model in evaluation["models"].items()}
        for task in evaluation["models"]["base"]["by_task"]
    }
    wrapped = {
        task.replace("reasoning-gym/", "gym\n").replace("-", "\n").replace("_", "\n"): row
        for task, row in groups.items()
    }
    return [
        _figure(
            plots.curves("SFT loss", "step", "nats", {"SFT": ([r["step"] for r in sft], [r["loss"] for r in sft])}),
            "Fine-tuning loss: answers only, every sample of equal weight.",
        ),
        _figure(
            plots.curves(
                "Reward model",
                "step",
                "accuracy",
                {"train": ([r["step"] for r in reward], [r["accuracy"] for r in reward])},
            ),
            "Share of training pairs that the reward model ranks right.",
        ),
        _figure(
            plots.curves("DPO margins", "step", "implicit reward margin", margins),
            "Margin between chosen and rejected answers, offline and online.",
        ),
        _figure(plots.bars("Exact match", "exact match", wrapped), "Held-out exact match by task, before and after."),
    ]


def _kv_figure(journey: Journey, reduction: float) -> dict[str, str]:
    lightning = load_preset("lightning")

    def gigabytes(config: ModelConfig) -> list[float]:
        spec = CacheSpec.of(config)
        return [spec.bytes_per_sequence(context, 2) / GB for context in CONTEXTS]

    full = lightning.model_copy(update={"layer_pattern": "F", "kv_share": 1})
    unshared = lightning.model_copy(update={"kv_share": 1})
    series = {"full attention": gigabytes(full), "hybrid": gigabytes(unshared), "hybrid, shared": gigabytes(lightning)}
    own = load_config(journey.steps["dpo"].path)
    context = own.max_position_embeddings
    return _figure(
        plots.kv_memory(CONTEXTS, series),
        f"KV cache of the lightning preset in bfloat16: {reduction:.4%} less at 64K. The demo's own model saves "
        f"{kv_reduction(own, context):.1%} at its context of {context}.",
    )


def _samples(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    models = evaluation["models"].values()
    return [
        {**question, "answers": [model["answers"][index] for model in models]}
        for index, question in enumerate(evaluation["questions"])
    ]


def _guard_rows(journey: Journey, guard: Mapping[str, Any]) -> list[dict[str, str]]:
    statistics = journey.data.statistics
    redacted = sum(source["redacted"] for source in statistics.values())
    dropped = sum(source["dropped"] for source in statistics.values())
    instructions = journey.steps["instructions"].measurements
    return [
        {
            "component": "RAISE-1, corpus",
            "result": f"judged every document before training: {redacted} redacted, {dropped} dropped",
        },
        {
            "component": "RAISE-2, alignment",
            "result": f"dropped {instructions['dropped']} conversations from fine-tuning; "
            "its penalty is part of the reward",
        },
        {
            "component": "RAISE-3, input",
            "result": f"{guard['attacks_caught']} of {guard['attacks']} written attacks blocked; "
            f"{guard['false_alarms']} of {guard['harmless']} harmless texts stopped; "
            f"{guard['verdict_ms']:.2f} ms a verdict (median). A smoke set, not a benchmark.",
        },
        {
            "component": "RAISE-4, output",
            "result": "an e-mail address that the model knows by heart never reached the client"
            if guard["leak"]["redacted"]
            else "the model did not say the address it was taught, so there was nothing to hold back",
        },
    ]


def _guard_plots(guard: Mapping[str, Any]) -> list[dict[str, str]]:
    shares = {
        "attacks": {"blocked": guard["attacks_caught"] / guard["attacks"]},
        "harmless": {"blocked": guard["false_alarms"] / guard["harmless"]},
    }
    return [_figure(plots.bars("RAISE-3", "share blocked", shares), "Share of prompts that RAISE-3 blocks.")]
