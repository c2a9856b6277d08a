"""What the trainer registers: verbs, data sources and verifiers. Light: all is a dotted path until it is used."""

from __future__ import annotations

from fulmen_core.descriptors import CommandInfo, SourceInfo, VerifierInfo
from fulmen_core.hooks import hookimpl


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The trainer's verbs."""
    return [
        CommandInfo(
            "data", "build token shards from documents, and safety pairs from prompts", "fulmen_trainer.cli.data:run"
        ),
        CommandInfo("tokenizer", "train a BPE tokenizer on a corpus", "fulmen_trainer.cli.tokenizer:run"),
        CommandInfo("pretrain", "pre-train in three stages", "fulmen_trainer.cli.pretrain:run"),
        CommandInfo("sft", "fine-tune on instructions", "fulmen_trainer.cli.sft:run"),
        CommandInfo("reward", "train a reward model on preference pairs", "fulmen_trainer.cli.reward:run"),
        CommandInfo("dpo", "align with DPO, offline and online", "fulmen_trainer.cli.dpo:run"),
    ]


@hookimpl
def fulmen_data_sources() -> list[SourceInfo]:
    """Where documents and instructions come from."""
    return [
        SourceInfo(
            "python-stdlib",
            "source and docstrings of the running Python's standard library",
            "documents",
            "fulmen_trainer.data.sources:python_stdlib",
        ),
        SourceInfo("folder", "text files below a folder", "documents", "fulmen_trainer.data.sources:folder"),
        SourceInfo("jsonl", "JSON Lines with a text field", "documents", "fulmen_trainer.data.sources:jsonl"),
        SourceInfo(
            "tasks",
            "generated arithmetic, string and reasoning tasks with verifiers",
            "instructions",
            "fulmen_trainer.data.tasks:tasks",
        ),
    ]


@hookimpl
def fulmen_verifiers() -> list[VerifierInfo]:
    """How answers are scored."""
    return [
        VerifierInfo("exact", "the answer equals the item's answer", "fulmen_trainer.data.verifiers:exact"),
        VerifierInfo("final", "the answer's last word equals the item's answer", "fulmen_trainer.data.verifiers:final"),
        VerifierInfo(
            "reasoning-gym",
            "the scorer of the reasoning-gym task that made the item",
            "fulmen_trainer.data.verifiers:reasoning_gym",
        ),
    ]
