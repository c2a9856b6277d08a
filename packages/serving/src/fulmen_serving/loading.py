"""From a model directory to a running service: checks first, then the guard, then the model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen_core.backend import Dtype, KVDtype, Quantization
from fulmen_core.errors import PluginError, UserError
from fulmen_core.model_directory import ModelDirectory
from fulmen_core.runner import EngineLimits
from fulmen_serving.engine.admission import Admission, AdmissionLimits
from fulmen_serving.engine.model_plan import ModelPlan
from fulmen_serving.engine.scheduler import check_limits

if TYPE_CHECKING:
    from fulmen_core.guard import Guard
    from fulmen_core.registry import Registry
    from fulmen_serving.adapter_folder import AdapterFolder
    from fulmen_serving.engine.model_process import ModelProcess
    from fulmen_serving.engine.report import ModelHost
    from fulmen_serving.guarding.guard_process import GuardProcess
    from fulmen_serving.service import ChatService

#: The context served when nobody says: memory is sized for all slots at once.
DEFAULT_CONTEXT = 2048
MAX_STEP_TOKENS = 512


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """How to serve a model.

    Attributes:
        model: a checkpoint or an exported artefact.
        name: what clients call it; empty takes the directory's name.
        backend: a backend's name, or "auto".
        backend_options: see `ModelPlan.options`.
        guarded: whether RAISE judges what goes in and out.
        policy: the guard's policy file; None is its own default.
        guard_wait: see `Engine`.
        max_sequences: answers generated at once.
        max_context: tokens of a conversation with its answer; None is the model's own, at most `DEFAULT_CONTEXT`.
        admission: how much may wait.
        threads: of a backend's runtime that has a pool of its own; 0 is its choice.
        dtype: of weights and products; None: what an artefact was exported in, float32 of a checkpoint.
        quantize: how weights are quantised on loading; None: not.
        kv_dtype: of keys and values; None: `dtype`.
        reasoning: whether answers may begin with reasoning; None: if the template or the vocabulary knows it.
        cached_prefixes: prefixes kept for requests that begin alike.
        kv_tokens: tokens that the full caches hold together; 0: whole contexts for all that run at once.
        speculate: what guesses tokens; see `ModelPlan`.
        draft_tokens: guessed for one sequence at once.
        batch_invariant: see `ModelPlan`.
        adapters: a folder of LoRA adapters, see `AdapterFolder`; None: there are none.
        max_adapters: loaded at once.
        max_adapter_rank: the largest rank of one.
    """

    model: Path
    name: str = ""
    backend: str = "auto"
    backend_options: Mapping[str, str] = field(default_factory=dict)
    guarded: bool = True
    policy: Path | None = None
    guard_wait: float = 0.05
    max_sequences: int = 16
    max_context: int | None = None
    admission: AdmissionLimits = field(default_factory=AdmissionLimits)
    threads: int = 0
    dtype: Dtype | None = None
    quantize: Quantization | None = None
    kv_dtype: KVDtype | None = None
    reasoning: bool | None = None
    cached_prefixes: int = 16
    kv_tokens: int = 0
    speculate: str = ""
    draft_tokens: int = 4
    batch_invariant: bool = False
    adapters: Path | None = None
    max_adapters: int = 8
    max_adapter_rank: int = 64

    @property
    def served_name(self) -> str:
        """What clients call the model."""
        return self.name or self.model.resolve().name


def load_guard(registry: Registry, policy: Path | None) -> Guard:
    """Load the guard named "raise".

    Raises:
        UserError: it is not installed, cannot be used, or the policy is at fault. Nothing is then served.
    """
    if policy is not None and not policy.is_file():
        raise UserError(f"there is no policy file {policy}", remedy="check the path given with --policy")
    try:
        return registry.guard("raise", policy)
    except PluginError as error:
        raise PluginError(
            f"the model is not served without its guard, and {error.what}",
            where=error.where,
            remedy=f"{error.remedy or 'pip install fulmen-safety'}; or give --no-guard to serve unguarded on purpose",
        ) from error


def plan_model(options: ServingOptions, registry: Registry) -> ModelPlan:
    """What is to be loaded, as far as the small files of the model directory say.

    Raises:
        UserError: the directory holds no model, or a limit makes no sense.
    """
    limits = _limits(options, ModelDirectory.inspect(options.model))
    plan = ModelPlan(
        options.model,
        options.backend,
        limits,
        options.dtype,
        _chosen(options),
        options.backend_options,
        speculate=options.speculate,
        batch_invariant=options.batch_invariant,
    )
    return plan if registry.discovery is None else replace(plan, plugins=registry.discovery)


def load_service(
    options: ServingOptions,
    registry: Registry,
    process: ModelProcess | None = None,
    guard_process: GuardProcess | None = None,
) -> ChatService:
    """Load the model and start its engine.

    Args:
        options: what to serve.
        registry: where backend and guard come from.
        process: one that loads the model by `plan_model`; the service closes it. None loads the model in this process.
        guard_process: the guard, if it has a process of its own; whoever made it closes it.

    Raises:
        UserError: the directory holds no model, no backend serves it, the tokenizer does not fit, a limit makes no
            sense, or the guard cannot be loaded. Nothing runs then.
    """
    # here, so that the process which loads the model can be started before all this is imported
    from fulmen_core.tokenizer import load_tokenizer
    from fulmen_serving.engine.engine import Engine
    from fulmen_serving.engine.model_thread import ModelThread
    from fulmen_serving.grammar.compiler import GrammarCompiler
    from fulmen_serving.metrics import ServingMetrics
    from fulmen_serving.parsing.reasoning import knows_reasoning
    from fulmen_serving.served_model import ServedModel
    from fulmen_serving.service import ChatService

    with contextlib.ExitStack() as undo:
        if process is not None:
            undo.callback(process.close)
        directory = ModelDirectory.inspect(options.model)
        tokenizer = load_tokenizer(options.model)
        tokenizer.check_model_vocab(directory.vocab_size, str(options.model))
        plan = plan_model(options, registry)
        adapters = _adapters(options)
        Admission(options.admission, plan.limits)  # refuses limits that make no sense before the model is waited for
        guard: Guard | None = guard_process
        if guard_process is not None:
            guard_process.start()
        elif options.guarded:
            guard = load_guard(registry, options.policy)
        stop_ids = directory.stop_ids() | frozenset(tokenizer.stop_ids)
        grammars = GrammarCompiler(tokenizer, stop_ids)
        host: ModelHost
        if process is None:
            loaded, core = plan.open(registry, grammars.open)
            undo.callback(core.close)
            host, backend, embeds = ModelThread(core), loaded.name, loaded.capabilities().embed
        else:
            ready = process.wait_ready()
            host, backend, embeds = process, ready.backend, ready.embeds
        metrics = ServingMetrics()
        engine = Engine(host, options.admission, metrics, options.guard_wait)
        served = ServedModel(
            name=options.served_name,
            backend=backend,
            stop_ids=stop_ids,
            temperature=directory.default("temperature", 1.0),
            top_p=directory.default("top_p", 1.0),
            fingerprint=directory.fingerprint(backend, guard.policy_version if guard else ""),
            created=int(time.time()),
            reasoning=knows_reasoning(tokenizer) if options.reasoning is None else options.reasoning,
            embeds=embeds,
        )
        undo.pop_all()
    engine.start()
    return ChatService(
        served,
        tokenizer,
        engine,
        guard,
        metrics,
        lambda record: registry.announce("fulmen_request_done", record=record),
        grammars,
        adapters,
    )


def _adapters(options: ServingOptions) -> AdapterFolder | None:
    from fulmen_core.model.config_file import load_config
    from fulmen_serving.adapter_folder import AdapterFolder

    if options.adapters is None:
        return None
    return AdapterFolder(options.adapters, options.served_name, load_config(options.model), options.max_adapter_rank)


def _chosen(options: ServingOptions) -> dict[str, Any]:
    """What was chosen beyond the dtype: a backend that knows no such choice is not bothered with none."""
    chosen = {"quantize": options.quantize, "kv_dtype": options.kv_dtype}
    return {name: value for name, value in chosen.items() if value is not None}


def _limits(options: ServingOptions, directory: ModelDirectory) -> EngineLimits:
    longest = directory.max_context
    context = min(longest, DEFAULT_CONTEXT) if options.max_context is None else options.max_context
    if context > longest:
        raise UserError(
            f"a context of {context} tokens is longer than the {longest} the model was made for",
            where=str(options.model),
            remedy=f"give --max-context {longest} or less",
        )
    if options.speculate and options.draft_tokens < 1:
        raise UserError(
            f"nothing is guessed with {options.draft_tokens} tokens", remedy="give --draft-tokens 1 or more"
        )
    if options.adapters is not None:
        for value, option in (
            (options.max_adapters, "--max-adapters"),
            (options.max_adapter_rank, "--max-adapter-rank"),
        ):
            if value < 1:
                raise UserError(f"with {value} no adapter is served", remedy=f"give {option} 1 or more")
    step_tokens = max(MAX_STEP_TOKENS, options.max_sequences)
    limits = EngineLimits(
        options.max_sequences,
        context,
        step_tokens,
        options.threads,
        cached_sequences=options.cached_prefixes,
        kv_tokens=options.kv_tokens,
        draft_tokens=options.draft_tokens if options.speculate else 0,
        adapters=0 if options.adapters is None else options.max_adapters,
        adapter_rank=options.max_adapter_rank,
    )
    check_limits(limits)
    return limits
