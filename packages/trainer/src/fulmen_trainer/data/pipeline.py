"""The data run: sources → RAISE-1 → exact dedup → tokenizer → packed shards, each an artefact that is made once.

Every step is skipped while its config and inputs are unchanged, and whole or absent; what it left out is in its
measurements.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fulmen_core.errors import UserError
from fulmen_core.guard import Guard
from fulmen_core.registry import Registry
from fulmen_core.runs import Artefact, RunDirectory
from fulmen_core.suggestions import remedy_for_unknown
from fulmen_core.tokenizer import ByteLevelTokenizer, load_tokenizer
from fulmen_core.tokenizer.vocabulary import check_vocab_size
from fulmen_trainer.data.baseline import gzip_bits_per_byte
from fulmen_trainer.data.corpus_report import TEXT_FILE
from fulmen_trainer.data.dedup import deduplicate
from fulmen_trainer.data.documents import collect, read_documents, text_of
from fulmen_trainer.data.filtering import filter_documents
from fulmen_trainer.data.recipe import DataRecipe, SourceConfig, TokenizerConfig
from fulmen_trainer.data.shards import write_shards
from fulmen_trainer.data.tokenising import tokenise, training_texts

Report = Callable[[str], None]


@dataclass(frozen=True)
class DataResult:
    """What a data run made.

    Attributes:
        tokenizer: directory of the tokenizer.
        documents: JSON Lines of each source after filter and dedup: documents, or instructions.
        shards: shard directory of each source.
        statistics: for each source its counts and ratios.
        reports: what RAISE-1 found in each source, for people; beside each is the same as JSON.
    """

    tokenizer: Path
    documents: dict[str, Path]
    shards: dict[str, Path]
    statistics: dict[str, dict[str, Any]]
    reports: dict[str, Path]


def build_data(
    recipe: DataRecipe, registry: Registry, *, runs: RunDirectory | None = None, report: Report = lambda _: None
) -> DataResult:
    """Run the pipeline, or what of it is not made yet.

    Args:
        recipe: what to do.
        registry: where sources and the guard come from.
        runs: the run to add the artefacts to; the recipe's own if None.
        report: is told a line about each step.

    Raises:
        UserError: a source, its settings, the guard or the tokenizer is at fault; see the functions of each step.
    """
    _check_tokenizer(recipe.tokenizer)
    runs = runs or RunDirectory(recipe.run, registry=registry)
    guard = None if recipe.guard.name == "none" else registry.guard(recipe.guard.name, recipe.guard.policy)
    collected, kept = {}, {}
    for name, source in sorted(recipe.sources.items(), key=lambda item: item[1].purpose != "heldout"):
        collected[name] = _collect(runs, name, source, registry)
        _tell(report, collected[name])
        kept[name] = collected[name]
        if guard is not None:
            kept[name] = _filter(runs, name, collected[name], recipe, guard)
            _tell(report, kept[name])
    unique = _deduplicate(runs, kept, recipe)
    _tell(report, unique)
    documents = {name: unique.path / f"{name}.jsonl" for name in kept}
    tokenizer = _tokenizer(runs, recipe, documents, unique)
    if isinstance(tokenizer, Artefact):
        _tell(report, tokenizer)
    directory = tokenizer.path if isinstance(tokenizer, Artefact) else tokenizer
    shards, statistics = {}, {}
    for name in documents:
        shards[name] = _pack(runs, name, documents[name], unique, tokenizer, directory)
        _tell(report, shards[name])
        statistics[name] = _summary(name, recipe.sources[name], collected, kept, unique, shards)
    reports = {name: artefact.path / TEXT_FILE for name, artefact in kept.items() if guard is not None}
    return DataResult(directory, documents, {name: shard.path for name, shard in shards.items()}, statistics, reports)


def open_source(name: str, config: SourceConfig, registry: Registry) -> Iterator[Mapping[str, object]]:
    """Open a recipe's source with its settings.

    Raises:
        UserError: there is no such source, or a setting is unknown or does not fit.
    """
    opener = registry.source(config.source)
    where = f"[sources.{name}.settings]"
    known = inspect.signature(opener).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for setting in config.settings:
            if setting not in known:
                raise UserError(
                    f"the source {config.source!r} has no setting {setting!r}",
                    where=where,
                    remedy=remedy_for_unknown(setting, known, kind="settings"),
                )
    missing = [key for key, value in known.items() if value.default is value.empty and key not in config.settings]
    if missing and known[missing[0]].kind is inspect.Parameter.KEYWORD_ONLY:
        raise UserError(f"the source {config.source!r} needs the setting {missing[0]!r}", where=where)
    try:
        return opener(**config.settings)
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{setting!r} does not fit", where=where, remedy=first["msg"]) from error


def _collect(runs: RunDirectory, name: str, source: SourceConfig, registry: Registry) -> Artefact:
    config: dict[str, Any] = {"source": source.source, "settings": source.settings, "python": platform.python_version()}
    path = source.settings.get("path")
    inputs = {"path": Path(path)} if isinstance(path, str) and Path(path).exists() else {}

    def build(work: Path) -> Mapping[str, Any]:
        return collect(name, open_source(name, source, registry), work / "documents.jsonl")

    return runs.step(f"documents-{name}", kind="documents", config=config, inputs=inputs, build=build)


def _filter(runs: RunDirectory, name: str, collected: Artefact, recipe: DataRecipe, guard: Guard) -> Artefact:
    config = {
        "guard": recipe.guard.name,
        "policy_version": guard.policy_version,
        "max_quarantine_rate": recipe.guard.max_quarantine_rate,
        "label": recipe.guard.label,
    }
    inputs: dict[str, Path | Artefact] = {"documents": collected}
    if recipe.guard.policy is not None and recipe.guard.policy.is_file():  # else it names a profile
        inputs["policy"] = recipe.guard.policy

    def build(work: Path) -> Mapping[str, Any]:
        source = collected.path / "documents.jsonl"
        settings = recipe.guard
        return filter_documents(
            source, work, guard, max_quarantine_rate=settings.max_quarantine_rate, label=settings.label
        )

    return runs.step(f"kept-{name}", kind="documents", config=config, inputs=inputs, build=build)


def _deduplicate(runs: RunDirectory, kept: Mapping[str, Artefact], recipe: DataRecipe) -> Artefact:
    heldout = [name for name in kept if recipe.sources[name].purpose == "heldout"]

    def build(work: Path) -> Mapping[str, Any]:
        statistics = deduplicate({name: artefact.path / "documents.jsonl" for name, artefact in kept.items()}, work)
        for name in heldout:
            texts = [text_of(record) for record in read_documents(work / f"{name}.jsonl")]
            statistics[name]["gzip_bits_per_byte"] = gzip_bits_per_byte(texts)
        return statistics

    return runs.step(
        "unique", kind="documents", config={"order": list(kept), "heldout": heldout}, inputs=kept, build=build
    )


def _tokenizer(
    runs: RunDirectory, recipe: DataRecipe, documents: Mapping[str, Path], unique: Artefact
) -> Artefact | Path:
    config: TokenizerConfig = recipe.tokenizer
    if config.path is not None:
        return config.path
    training = sorted(name for name, source in recipe.sources.items() if source.purpose == "train")

    def build(work: Path) -> Mapping[str, Any]:
        texts = training_texts(record for name in training for record in read_documents(documents[name]))
        tokenizer = ByteLevelTokenizer.train(texts, config.vocab_size)
        tokenizer.save(work)
        return {"vocab_size": tokenizer.vocab_size, "learned": tokenizer.vocab_size - len(tokenizer.special_ids)}

    return runs.step(
        "tokenizer",
        kind="tokenizer",
        config={"vocab_size": config.vocab_size, "sources": training},
        inputs={"documents": unique},
        build=build,
    )


def _check_tokenizer(config: TokenizerConfig) -> None:
    """Refuse now what would otherwise stop the run after its sources are read and filtered."""
    if config.path is not None:
        load_tokenizer(config.path)
    else:
        check_vocab_size(config.vocab_size)


def _pack(
    runs: RunDirectory, name: str, documents: Path, unique: Artefact, tokenizer: Artefact | Path, directory: Path
) -> Artefact:
    def build(work: Path) -> Mapping[str, Any]:
        loaded = load_tokenizer(directory)
        index = write_shards(work, tokenise(read_documents(documents), loaded), tokenizer=loaded)
        return {
            "documents": index.documents,
            "bytes": index.bytes,
            "tokens": index.tokens,
            "bytes_per_token": index.bytes / index.tokens,
        }

    inputs: dict[str, Path | Artefact] = {"documents": unique, "tokenizer": tokenizer}
    return runs.step(f"shards-{name}", kind="shards", config={"source": name}, inputs=inputs, build=build)


def _summary(
    name: str,
    source: SourceConfig,
    collected: Mapping[str, Artefact],
    kept: Mapping[str, Artefact],
    unique: Artefact,
    shards: Mapping[str, Artefact],
) -> dict[str, Any]:
    """One source's figures from all of its steps."""
    first, filtered = collected[name].measurements, kept[name].measurements
    return {
        "purpose": source.purpose,
        "collected": first["documents"],
        "collected_bytes": first["bytes"],
        "unreadable": first["unreadable"],
        **{key: filtered.get(key, 0) for key in ("redacted", "dropped", "quarantined")},
        **unique.measurements[name],
        **shards[name].measurements,
    }


def _tell(report: Report, artefact: Artefact) -> None:
    figures = {key: value for key, value in artefact.measurements.items() if isinstance(value, int | float)}
    shown = ", ".join(
        f"{key} {value:,.2f}" if isinstance(value, float) else f"{key} {value:,}" for key, value in figures.items()
    )
    report(f"{artefact.name}: {'unchanged' if artefact.skipped else 'made'}{f' ({shown})' if shown else ''}")
