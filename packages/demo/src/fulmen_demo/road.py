"""The road: every step of the main job in order, each an artefact of one run directory, made once and only if needed.

In: a `DemoConfig`, a registry, a console. Out: the artefacts. Nothing here trains, guards or serves: it composes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fulmen_core.export.options import ExportOptions
from fulmen_core.registry import Registry
from fulmen_core.runs import Artefact, RunDirectory
from fulmen_core.tokenizer import load_tokenizer
from fulmen_demo.config import DemoConfig
from fulmen_demo.evaluation import evaluate
from fulmen_demo.guarding import check_guard
from fulmen_demo.instructions import write_instructions
from fulmen_trainer.answering import open_runner
from fulmen_trainer.conversations import read_items
from fulmen_trainer.data.documents import read_documents, text_of
from fulmen_trainer.data.pipeline import DataResult, build_data
from fulmen_trainer.data.shards import open_shards
from fulmen_trainer.display import open_display
from fulmen_trainer.dpo import OnlineInputs, align
from fulmen_trainer.pair_building import Judge, build_pairs
from fulmen_trainer.preferences import write_pairs
from fulmen_trainer.pretrain import pretrain
from fulmen_trainer.reward import RewardModel, train_reward
from fulmen_trainer.sft import fine_tune

#: The artefact directory below the step that exports.
ONNX = "onnx"

#: Pairs of all checkpoints' answers, and of the fine-tuned model's alone.
ALL_PAIRS, OWN_PAIRS = "pairs.jsonl", "own-pairs.jsonl"


@dataclass(frozen=True)
class Journey:
    """What the road leaves behind."""

    data: DataResult
    steps: Mapping[str, Artefact]
    seconds: Mapping[str, float]  # of every artefact's build, the data's included


class Road:
    """Composes the stages. Interrupted anywhere, `travel` goes on from there when it is called again."""

    def __init__(self, config: DemoConfig, registry: Registry, console: Console) -> None:
        self._config, self._registry, self._console = config, registry, console
        self._runs = RunDirectory(config.run, registry=registry)
        self._guard = registry.guard(policy=config.data.guard.policy)
        self._steps: dict[str, Artefact] = {}

    def travel(self) -> Journey:
        """Take every step that is not taken yet."""
        config = self._config
        self._console.rule("data: sources → RAISE-1 → deduplication → tokenizer → shards", align="left")
        data = build_data(config.data, self._registry, runs=self._runs, report=self._report)
        tasks = {name: data.documents[name] for name in config.instructions}
        prompts = {name: data.documents[name] for name in config.preferences.sources}
        heldout_items, heldout_text = data.documents[config.heldout_items], data.documents[config.heldout_text]

        base = self._step("base", "model", config.pretrain, self._shards(data), lambda work: self._pretrain(data, work))
        instructions = self._step(
            "instructions",
            "instructions",
            {"max_penalty": config.sft.max_penalty, "policy_version": self._guard.policy_version},
            tasks,
            lambda work: write_instructions(
                list(tasks.values()), work / "instructions.jsonl", self._guard, config.sft.max_penalty
            ),
        )
        sft = self._step(
            "sft",
            "model",
            config.sft,
            {"start": base, "data": instructions},
            lambda work: fine_tune(
                base.path,
                instructions.path / "instructions.jsonl",
                config=config.sft,
                registry=self._registry,
                work=work,
                display=open_display(),
            ),
        )
        preferences = self._step(
            "preferences",
            "preferences",
            config.preferences,
            {"base": base, "sft": sft, **prompts},
            lambda work: self._sample_preferences(base, sft, prompts, work),
        )
        reward = self._step(
            "reward",
            "reward-model",
            config.reward,
            {"start": sft, "data": preferences},
            lambda work: train_reward(
                sft.path,
                preferences.path / ALL_PAIRS,
                config=config.reward,
                registry=self._registry,
                work=work,
                display=open_display(),
            ),
        )
        dpo = self._step(
            "dpo",
            "model",
            config.dpo,
            {"start": sft, "data": preferences, "reward": reward, **prompts},
            lambda work: align(
                sft.path,
                preferences.path / OWN_PAIRS,
                config=config.dpo,
                registry=self._registry,
                work=work,
                online=OnlineInputs(_items(prompts), RewardModel.load(reward.path), self._guard),
                display=open_display(),
            ),
        )
        models = {"base": base, "sft": sft, "dpo": dpo}
        self._step(
            "evaluation",
            "evaluation",
            config.evaluation,
            {**models, "reward": reward, "items": heldout_items, "text": heldout_text},
            lambda work: evaluate(
                {name: model.path for name, model in models.items()},
                reward.path,
                heldout_items,
                heldout_text,
                config=config.evaluation,
                registry=self._registry,
                backend=config.backend,
                out=work / "evaluation.json",
            ),
        )
        self._step("export", "onnx", {"format": "onnx"}, {"model": dpo}, lambda work: self._export(dpo.path, work))
        self._step(
            "guard",
            "guard",
            {"policy_version": self._guard.policy_version, "backend": config.backend},
            {"model": dpo, "text": heldout_text},
            lambda work: check_guard(
                dpo.path,
                heldout_text,
                guard=self._guard,
                policy=config.data.guard.policy,
                registry=self._registry,
                backend=config.backend,
                work=work,
            ),
        )
        seconds = {name: entry.seconds for name, entry in self._runs.entries().items()}
        return Journey(data, self._steps, seconds)

    def _report(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False)

    def _step(
        self,
        name: str,
        kind: str,
        config: Any,
        inputs: Mapping[str, Path | Artefact],
        build: Callable[[Path], Mapping[str, Any]],
    ) -> Artefact:
        self._console.rule(name, align="left")
        artefact = self._runs.step(name, kind=kind, config=config, inputs=inputs, build=build)
        self._steps[name] = artefact
        if artefact.skipped:
            self._report(f"{name}: unchanged")
        return artefact

    def _shards(self, data: DataResult) -> dict[str, Path]:
        names = {name for stage in self._config.pretrain.stages.all for name in stage.weights}
        return {name: data.shards[name] for name in sorted(names & data.shards.keys())} | {
            "tokenizer": data.tokenizer,
            "heldout": data.documents[self._config.heldout_text],
        }

    def _pretrain(self, data: DataResult, work: Path) -> Mapping[str, Any]:
        tokenizer = load_tokenizer(data.tokenizer)
        heldout = [text_of(record) for record in read_documents(data.documents[self._config.heldout_text])]
        measured = pretrain(
            self._config.pretrain,
            shards={name: open_shards(path, tokenizer=tokenizer) for name, path in data.shards.items()},
            tokenizer=tokenizer,
            heldout=heldout,
            work=work,
            registry=self._registry,
            display=open_display(),
        )
        return measured | {"gzip_bits_per_byte": data.statistics[self._config.heldout_text]["gzip_bits_per_byte"]}

    def _sample_preferences(
        self, base: Artefact, sft: Artefact, prompts: Mapping[str, Path], work: Path
    ) -> Mapping[str, Any]:
        """Answers of checkpoints of different phases (report, section 4.2.1), each prompt's best against its worst.

        All pairs teach the reward model. DPO gets the fine-tuned model's own: pushed away from answers that it would
        never give, a small model forgets what it knows.
        """
        config = self._config.preferences
        items = _items(prompts)
        judge = Judge(self._registry, config.pairs, guard=self._guard)
        pairs, counts = [], {}
        for number, model in enumerate((base, sft)):
            chosen = items[number * config.prompts : (number + 1) * config.prompts]
            with open_runner(self._registry, model.path, backend=self._config.backend) as runner:
                made, counts[model.name] = build_pairs(
                    runner, load_tokenizer(model.path), chosen, judge, seed=number, source=model.name
                )
            pairs += made
        write_pairs(work / ALL_PAIRS, pairs)
        write_pairs(work / OWN_PAIRS, made)
        return {"pairs": len(pairs), "by_model": counts}

    def _export(self, model: Path, work: Path) -> Mapping[str, Any]:
        exporter = self._registry.exporter("onnx")
        shutil.rmtree(work / ONNX, ignore_errors=True)
        manifest = exporter.export(model, work / ONNX, ExportOptions())
        return {**exporter.check(work / ONNX, model), "files": list(manifest["files"])}


def _items(tasks: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The items of all sources, shuffled so that any first part of them has every task."""
    items = [item for path in tasks.values() for item in read_items(path)]
    random.Random(0).shuffle(items)
    return items
