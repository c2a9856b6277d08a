"""One guarded chat model: a conversation in, a stream of answers out. The HTTP API and the terminal chat stand on it.

Order of a request: room? -> encode, fits the context? -> RAISE-3 -> admission -> engine -> RAISE-4 -> events. Nothing
that the guard has blocked reaches the engine, and nothing reaches the caller that the output guard has not returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from fulmen_core.errors import UserError
from fulmen_core.guard import Explains, Finding, Guard, InputVerdict
from fulmen_core.sampling import SamplingParams
from fulmen_core.tokenizer import StreamDecoder, Tokenizer
from fulmen_serving.account import Charge, ChoiceTally, current_account, current_salt
from fulmen_serving.adapter_folder import AdapterFolder
from fulmen_serving.answer import Answer, explanation
from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.engine.admission import EngineFull
from fulmen_serving.engine.answer_stream import AnswerStream
from fulmen_serving.engine.answer_text import AnswerText
from fulmen_serving.engine.engine import AnswerEnd, AnswerEvent, Engine, EngineStopped, TextDelta
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.engine.stop_strings import StopStrings
from fulmen_serving.grammar.answer_grammar import answer_grammar
from fulmen_serving.grammar.compiler import GrammarCompiler
from fulmen_serving.metrics import ServingMetrics
from fulmen_serving.parsing.answer_parser import PLAIN_TEXT, AnswerFormat
from fulmen_serving.parsing.reasoning import opens_reasoning
from fulmen_serving.prompt import ChatPrompt, Prompt
from fulmen_serving.recent_requests import RecentRequests
from fulmen_serving.refusal import Refusal
from fulmen_serving.request_trace import RequestTrace, current_trace
from fulmen_serving.served_model import ServedModel

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ChatService:
    """A model, its tokenizer, its engine and its guard.

    Args:
        model: what is served.
        tokenizer: the model's.
        engine: started; `close` closes it.
        guard: RAISE, or None to serve unguarded.
        metrics: where to count.
        announce: told of every request that ended, with a record that holds no text; on a thread of its own.
        grammars: compiles what answers must be; the engine opens constraints with the same one.
        adapters: what else is served: the model, changed; None: nothing.
    """

    def __init__(
        self,
        model: ServedModel,
        tokenizer: Tokenizer,
        engine: Engine,
        guard: Guard | None,
        metrics: ServingMetrics,
        announce: Callable[[Mapping[str, object]], None],
        grammars: GrammarCompiler | None = None,
        adapters: AdapterFolder | None = None,
    ) -> None:
        self.model, self.tokenizer, self.engine, self.guard, self.metrics = model, tokenizer, engine, guard, metrics
        self._announce, self._adapters = announce, adapters
        self._grammars = grammars or GrammarCompiler(tokenizer, model.stop_ids)
        self.recent = RecentRequests()
        # One thread: judging holds the interpreter's lock anyway, and a guard then judges one input at a time.
        self._intake = ThreadPoolExecutor(1, "fulmen-intake")
        # touched by the event loop's thread alone
        self._entering = 0  # answers asked for and not yet admitted
        self._judging = 0  # requests whose texts are being judged

    @property
    def max_context(self) -> int:
        """Tokens of the longest conversation with its answer."""
        return self.engine.limits.max_context

    @property
    def max_choices(self) -> int:
        """Answers that one request may ask for: as many as can run at once."""
        return self.engine.limits.max_sequences

    async def models(self) -> list[ServedModel]:
        """Everything that is served now: the model, then what adapters make of it."""
        adapters = [] if self._adapters is None else await asyncio.to_thread(self._adapters.all)
        return [self.model, *(self.model.changed_by(adapter) for adapter in adapters)]

    async def find_model(self, name: str | None) -> ServedModel:
        """Return what clients call `name`; None names the model itself.

        Raises:
            Refusal: 404, it is not served here.
        """
        if name in (None, self.model.name):
            return self.model
        try:
            adapter = None if self._adapters is None else await asyncio.to_thread(self._adapters.find, name)
        except UserError:  # the log has the fault; where files lie is not the client's business
            raise Refusal(
                404,
                f"The adapter '{name}' cannot be served; the server's log says why",
                code="model_not_found",
                param="model",
            ) from None
        if adapter is None:
            served = f"'{self.model.name}'" + (" and the adapters that /v1/models lists" if self._adapters else "")
            raise Refusal(
                404,
                f"The model '{name}' does not exist; this server serves {served}",
                code="model_not_found",
                param="model",
            )
        return self.model.changed_by(adapter)

    async def open(self, prompt: Prompt, options: AnswerOptions) -> Answer:
        """Judge and admit a prompt.

        Raises:
            Refusal: it is too long, a parameter is out of range, there is no room, or the guard failed.
        """
        begun = time.perf_counter()
        if self.engine.draining:
            raise self.refusal_when_stopping()
        if options.choices > self.max_choices:
            raise Refusal(
                400,
                f"n is {options.choices}, and this server gives at most {self.max_choices} answers to one request",
                code="invalid_value",
                param="n",
            )
        # Refuse before any work is done; those being judged count too, or a burst would fill the intake without bound.
        try:
            self.engine.admission.refuse_if_full(self._entering + options.choices)
        except EngineFull as full:
            raise refusal_when_full(full) from None
        self._entering += options.choices
        try:
            return await self._admit(prompt, options, begun)
        finally:
            self._entering -= options.choices

    async def _admit(self, prompt: Prompt, options: AnswerOptions, begun: float) -> Answer:
        in_thread = asyncio.get_running_loop().run_in_executor
        prompt_ids = await in_thread(self._intake, self.encode, prompt)
        params = self._params(options, len(prompt_ids), prompt.field)
        account = current_account.get()
        model = options.model or self.model
        charge = None if account is None else account.admit(model.name, len(prompt_ids))
        try:
            return await self._enter(prompt, options, begun, prompt_ids, params, charge)
        except BaseException:
            if charge is not None:
                charge.cancel()
            raise

    async def _enter(
        self,
        prompt: Prompt,
        options: AnswerOptions,
        begun: float,
        prompt_ids: list[int],
        params: SamplingParams,
        charge: Charge | None,
    ) -> Answer:
        in_thread = asyncio.get_running_loop().run_in_executor
        trace, judged_from, submitted = current_trace.get(), time.perf_counter(), None
        model = options.model or self.model
        verdict = None if self.guard is None else await in_thread(self._intake, self._judge, self.guard, prompt)
        judged_to = time.perf_counter()
        if trace is not None and verdict is not None:
            trace.judged(judged_from, judged_to, verdict.action, verdict.category)
        request_id = f"{prompt.id_prefix}{uuid.uuid4().hex}"

        def done(answer: Answer) -> None:
            self._report(answer, model.name, verdict, time.perf_counter() - begun, judged_to - judged_from)
            if trace is not None:
                trace.answered(request_id, model, options, answer.prompt_tokens, submitted, answer.ends)

        if verdict is not None and verdict.action == "block":
            self.metrics.requests.labels("content_filter").inc(options.choices)
            if charge is not None:
                charge.settle(len(prompt_ids), 0)
            blocked = _blocked(verdict, options.choices)
            return Answer(request_id, len(prompt_ids), blocked, done, degraded=verdict.degraded)
        if verdict is not None and verdict.action == "rewrite":
            prompt = prompt.rewritten(verdict.messages)
            prompt_ids = await in_thread(self._intake, self.encode, prompt)
            params = self._params(options, len(prompt_ids), prompt.field)
        form = self._format(prompt, prompt_ids, options)
        degraded = () if verdict is None else verdict.degraded
        made = request_id, prompt, prompt_ids, params, options, form, current_salt(), degraded, trace
        answers = await in_thread(self._intake, self._answers, *made)
        submitted = time.perf_counter()
        try:
            tally = None if charge is None else ChoiceTally(charge, options.choices)
            stream = AnswerStream(self.engine, answers, tally)
        except EngineFull as full:
            raise refusal_when_full(full) from None
        except EngineStopped:
            raise self.refusal_when_stopping() from None
        return Answer(request_id, len(prompt_ids), stream, done, form, degraded)

    @property
    def required_guard(self) -> Guard:
        """The guard.

        Raises:
            Refusal: 404, there is none.
        """
        if self.guard is None:
            raise Refusal(
                404, "This server runs without a guard (--no-guard), so it cannot judge a text", code="no_guard"
            )
        return self.guard

    async def judge(self, texts: Sequence[str]) -> list[tuple[InputVerdict, Mapping[str, float]]]:
        """What the guard says of each of `texts`, as of what a user said, and how suspect it is in each category, also
        where the guard does nothing; empty where the guard does not say. The model does not run.

        Raises:
            Refusal: 404 there is no guard, 429 too many wait for it, 500 it failed.
        """
        guard = self.required_guard
        with self._place_at_the_guard():
            # one by one, so that a long list does not hold up the prompts of others
            return [await self.in_intake(self._judge_text, guard, text) for text in texts]

    async def explain(self, text: str) -> Mapping[str, Any]:
        """What each detector says of `text` and what each component would do. Nothing is recorded.

        Raises:
            Refusal: 404 there is no guard or it does not say, 429 too many wait for it, 500 it failed.
        """
        guard = self.required_guard
        with self._place_at_the_guard():
            said = await self.in_intake(_explained, guard, text)
        if not said:
            raise Refusal(404, f"The guard '{guard.name}' does not explain what it sees", code="no_explanation")
        return said

    @contextlib.contextmanager
    def _place_at_the_guard(self) -> Iterator[None]:
        room = self.max_choices + self.engine.admission.limits.max_waiting
        if self._judging >= room:
            raise Refusal(
                429,
                f"The server is full: {room} requests wait for the guard",
                code="rate_limit_exceeded",
                retry_after=1,
            )
        self._judging += 1
        try:
            yield
        finally:
            self._judging -= 1

    def close(self) -> None:
        """Stop the engine and the intake. Idempotent."""
        self.engine.close()
        self._intake.shutdown()

    async def in_intake(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what judges or encodes on the intake thread, and wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._intake, function, *arguments)

    # -- on the intake thread -----------------------------------------------------------------------------------------

    def encode(self, prompt: Prompt) -> list[int]:
        """The ids of a prompt that leaves room for an answer.

        Raises:
            Refusal: it cannot be encoded, or is too long.
        """
        try:
            ids = prompt.encode(self.tokenizer)
        except UserError as error:
            raise Refusal(400, str(error), code="invalid_value", param=prompt.field) from None
        if len(ids) >= self.max_context:
            raise Refusal(
                400,
                f"This model's maximum context length is {self.max_context} tokens, and your {prompt.field} came to "
                f"{len(ids)}, which leaves no room for an answer; please shorten what you send",
                code="context_length_exceeded",
                param=prompt.field,
            )
        return ids

    def _judge_text(self, guard: Guard, text: str) -> tuple[InputVerdict, Mapping[str, float]]:
        verdict = self._judge(guard, ChatPrompt(({"role": "user", "content": text},)))
        try:
            return verdict, guard.category_scores(text) if isinstance(guard, Explains) else {}
        except Exception as error:
            raise _guard_failed(error) from error

    def _judge(self, guard: Guard, prompt: Prompt) -> InputVerdict:
        try:
            return guard.judge_input(prompt.messages(self.tokenizer))
        except Exception as error:  # fail closed: what could not be judged is not answered
            raise _guard_failed(error) from error

    def _format(self, prompt: Prompt, prompt_ids: list[int], options: AnswerOptions) -> AnswerFormat:
        """What the answer's text may hold: a text that is continued holds nothing but text."""
        if not isinstance(prompt, ChatPrompt):
            return PLAIN_TEXT
        reasoning = self.model.reasoning
        inside = reasoning and opens_reasoning(self.tokenizer.decode(prompt_ids[-16:], skip_special=False))
        return AnswerFormat(reasoning, inside, options.calls is not None)

    def _answers(
        self,
        request_id: str,
        prompt: Prompt,
        prompt_ids: list[int],
        params: SamplingParams,
        options: AnswerOptions,
        form: AnswerFormat,
        salt: str,
        degraded: tuple[str, ...],
        trace: RequestTrace | None,
    ) -> list[tuple[GenerationRequest, AnswerText]]:
        grammar = answer_grammar(self._grammars, options.shape, options.calls, form)
        # the seed is the sampler's second argument, mixed with the choice: choices differ, and each is repeatable
        seed = secrets.randbits(63) if params.seed is None else params.seed
        messages = prompt.messages(self.tokenizer)
        unseeded = replace(params, seed=None)
        answers = []
        for index in range(options.choices):
            try:
                guard = None if self.guard is None else self.guard.open_output(messages)
            except Exception as error:
                raise _guard_failed(error) from error
            opener = self.guard
            if trace is not None and guard is not None:
                guard, opener = trace.watch(index, guard), None  # its own work is timed: it is read alone
            request = GenerationRequest(
                f"{request_id}-{index}",
                prompt_ids,
                unseeded,
                (seed, index),
                frozenset() if options.ignore_eos else self.model.stop_ids,
                grammar=grammar,
                logprobs=options.logprobs,
                priority=options.priority,
                salt=salt,
                adapter=None if options.model is None else options.model.adapter,
            )
            text = AnswerText(StreamDecoder(self.tokenizer), StopStrings(params.stop), guard, degraded, opener)
            answers.append((request, text))
        return answers

    # -----------------------------------------------------------------------------------------------------------------

    def _params(self, options: AnswerOptions, prompt_tokens: int, field: str) -> SamplingParams:
        room = self.max_context - prompt_tokens
        max_tokens = room if options.max_tokens is None else options.max_tokens
        if max_tokens > room:
            raise Refusal(
                400,
                f"This model's maximum context length is {self.max_context} tokens. You requested "
                f"{prompt_tokens + max_tokens} ({prompt_tokens} in the {field}, {max_tokens} in the answer); please "
                "reduce either",
                code="context_length_exceeded",
                param="max_tokens",
            )
        outside = [token for token, _ in options.logit_bias if token >= self.tokenizer.vocab_size]
        if outside:
            raise Refusal(
                400,
                f"'logit_bias' has token id {outside[0]}, outside the vocabulary of {self.tokenizer.vocab_size} tokens",
                code="invalid_value",
                param="logit_bias",
            )
        try:
            return SamplingParams(
                temperature=self.model.temperature if options.temperature is None else options.temperature,
                top_p=self.model.top_p if options.top_p is None else options.top_p,
                top_k=options.top_k,
                max_tokens=max_tokens,
                seed=options.seed,
                stop=options.stop,
                logit_bias=options.logit_bias,
                presence_penalty=options.presence_penalty,
                frequency_penalty=options.frequency_penalty,
            )
        except UserError as error:
            raise Refusal(400, str(error), code="invalid_value") from None

    def refusal_when_stopping(self) -> Refusal:
        """The refusal of every request once the engine takes no more."""
        return Refusal(503, self.engine.fault or "The server is stopping", code="service_unavailable", retry_after=5)

    def report(self, request_id: str, model: str, prompt_tokens: int, seconds: float, **more: object) -> None:
        """Announce that a request to `model` ended, on the intake thread."""
        record: dict[str, object] = {
            "request_id": request_id,
            "model": model,
            "backend": self.model.backend,
            "policy": None if self.guard is None else self.guard.policy_version,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 0,
            "seconds": seconds,
            "ended": time.time(),
            "input_action": None,
            "input_category": "",
            "input_findings": [],
            "input_seen": [],
            "input_seconds": None,
            "input_degraded": [],
            "answers": [],
        } | more
        self.recent.add(record)
        try:
            self._intake.submit(self._announce, record)
        except RuntimeError:  # the service was closed while a client still read: nobody is left to tell
            logger.debug("request %s ended after the service", request_id)

    def _report(
        self, answer: Answer, model: str, verdict: InputVerdict | None, seconds: float, judged_seconds: float
    ) -> None:
        more: dict[str, object] = {
            "input_seconds": judged_seconds if verdict is not None else None,
            "input_degraded": [] if verdict is None else list(verdict.degraded),
            "input_seen": [] if verdict is None else _seen(verdict.findings),
            "completion_tokens": answer.completion_tokens,
            "input_action": None if verdict is None else verdict.action,
            "input_category": "" if verdict is None else verdict.category,
            "input_findings": [] if verdict is None else [finding.category for finding in verdict.findings],
            "answers": [
                {
                    "end": end.reason,
                    "tokens": end.completion_tokens,
                    "category": end.category,
                    "degraded": list(end.degraded),
                    "findings": [finding.category for finding in end.findings],
                    "seen": _seen(end.findings),
                    "queue_seconds": end.queue_seconds,
                    "first_token_seconds": end.first_token_seconds,
                    "reused_tokens": end.reused_tokens,
                    "decisions": explanation(end.decisions),
                }
                for _, end in sorted(answer.ends.items())
            ],
        }
        self.report(answer.request_id, model, answer.prompt_tokens, seconds, **more)


async def _blocked(verdict: InputVerdict, choices: int) -> AsyncIterator[tuple[int, AnswerEvent]]:
    """The safe completion, as an ordinary answer."""
    for index in range(choices):
        if verdict.message:
            yield index, TextDelta(verdict.message)
        yield index, AnswerEnd("content_filter", 0, verdict.findings, verdict.category, degraded=verdict.degraded)


def refusal_when_full(full: EngineFull) -> Refusal:
    """The refusal of a request for which the engine has no room."""
    return Refusal(429, str(full), code="rate_limit_exceeded", retry_after=full.retry_after)


def _seen(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """Findings as a record holds them: without any text, or its place."""
    return [
        {"detector": one.detector, "category": one.category, "label": one.label, "score": round(one.score, 4)}
        for one in findings
    ]


def _explained(guard: Guard, text: str) -> Mapping[str, Any]:
    try:
        return guard.explain(text) if isinstance(guard, Explains) else {}
    except Exception as error:
        raise _guard_failed(error) from error


def _guard_failed(error: Exception) -> Refusal:
    logger.error("the guard failed, so the request is not served", exc_info=error)
    return Refusal(500, "The safety guard failed, so the request was not served", code="guard_failed")
