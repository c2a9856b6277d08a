"""The loop of an answer with tools: the model calls, the server runs the calls, the model goes on.

Every round is an ordinary request to the service: judged by RAISE-3 with what the tools returned, admitted, metered,
guarded by RAISE-4. So whatever holds for an answer holds for each round of this one. What a tool returned is only ever
read by the model; nobody executes it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from fulmen_core.guard import Guard
from fulmen_serving.answer import Answer
from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure, TextDelta
from fulmen_serving.parsed_events import ParsedEvent
from fulmen_serving.parsing.parts import ReasoningDelta, SaidDelta, ToolCall, ToolCallDelta, WholeAnswer
from fulmen_serving.prompt import ChatPrompt
from fulmen_serving.refusal import Refusal
from fulmen_serving.service import ChatService
from fulmen_serving.tools.result_guard import WITHHELD, judge_result
from fulmen_serving.tools.server_tool import ServerTool
from fulmen_serving.tools.tool_events import ToolActivity, ToolStatus
from fulmen_serving.tools.tool_runner import ToolOutcome
from fulmen_serving.tools.tool_turns import with_turn
from fulmen_serving.tools.toolbox import Toolbox

_REPEATED = "Error: this very call was made before in this answer; its result stands above"
_TOO_LARGE = "Error: the result does not fit into the context; ask for less, or answer without it"
_TOO_MANY = "Error: too many calls at once; this one was not made"

#: Tokens that must be left for an answer after results have been read.
_ROOM = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Done:
    """A call with what came of it: for the model, and for the client."""

    text: str
    activity: ToolActivity


async def open_with_tools(
    service: ChatService,
    toolbox: Toolbox,
    tools: Mapping[str, ServerTool],
    prompt: ChatPrompt,
    options: AnswerOptions,
) -> ToolAnswer:
    """Open an answer in which the model may call `tools`, which `prompt` shows and `options` allow.

    Raises:
        Refusal: as `ChatService.open`, of the first round; a later round that is refused fails the answer.
    """
    return ToolAnswer(service, toolbox, tools, prompt, options, await service.open(prompt, options))


class ToolAnswer:
    """One answer over all its rounds: iterate over pairs of choice (always 0) and event, and close it in any case.

    Attributes:
        request_id: of the first round.
        prompt_tokens: of all rounds.
        reused_tokens: of the prompts of all rounds, those that were found computed.
        completion_tokens: of all rounds.
        degraded: detectors of the guard that gave no result on the first prompt.
        ends: the end of the whole answer, once it is there.
    """

    def __init__(
        self,
        service: ChatService,
        toolbox: Toolbox,
        tools: Mapping[str, ServerTool],
        prompt: ChatPrompt,
        options: AnswerOptions,
        first: Answer,
    ) -> None:
        self._service, self._toolbox, self._tools, self._options = service, toolbox, tools, options
        self._prompt, self._round = prompt, first
        self.request_id, self.prompt_tokens, self.degraded = first.request_id, first.prompt_tokens, first.degraded
        self.reused_tokens, self.completion_tokens = 0, 0
        self.ends: dict[int, AnswerEnd] = {}
        self._seconds = toolbox.bounds.seconds
        self._spoke = False
        self._made: set[ToolCall] = set()
        self._events = self._answer()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, ParsedEvent | ToolActivity]:
        event = await anext(self._events)
        if isinstance(event, AnswerEnd):
            self.ends[0] = event
        return 0, event

    def close(self) -> None:
        """Abort what has not ended. Idempotent."""
        self._round.close()

    async def _answer(self) -> AsyncIterator[ParsedEvent | ToolActivity]:
        rounds, last = 0, False
        while True:
            whole = WholeAnswer()
            end: AnswerEnd | None = None
            async for event in self._one_round(whole):
                if isinstance(event, AnswerEnd):
                    end = event
                else:
                    yield event
            if end is None:  # it failed, and that was told
                return
            self.completion_tokens += end.completion_tokens
            self.reused_tokens += end.reused_tokens
            total = replace(end, completion_tokens=self.completion_tokens)
            if not whole.calls or end.reason != "stop":
                yield total
                return
            if last:  # it was no longer told of tools, and calls again
                yield replace(total, reason="length")
                return
            rounds += 1
            calls = [(f"call_{secrets.token_hex(12)}", call) for call in whole.calls]
            for id, call in calls:
                yield ToolActivity(id, call.name, call.arguments)
            last = rounds == self._toolbox.bounds.rounds or all(call in self._made for _, call in calls)
            done = await self._run(calls)
            for one in done:
                yield one.activity
            self._round.close()
            if self._left() == 0:
                yield replace(total, reason="length")
                return
            try:
                await self._go_on(whole, calls, [one.text for one in done], tools=not last)
            except Refusal as refusal:
                yield AnswerFailure(str(refusal))
                return

    async def _one_round(self, whole: WholeAnswer) -> AsyncIterator[ParsedEvent]:
        """The events of a round without its calls, which are put into `whole`."""
        between = "\n\n" if self._spoke else ""
        async for _, event in self._round:
            match event:
                case TextDelta(text, logprobs):
                    if text:
                        whole.add(SaidDelta(text))
                        text, between, self._spoke = between + text, "", True
                    yield TextDelta(text, logprobs)
                case ToolCallDelta():
                    whole.add(event)
                case ReasoningDelta():
                    whole.add(event)
                    yield event
                case _:
                    yield event

    async def _go_on(
        self, turn: WholeAnswer, calls: Sequence[tuple[str, ToolCall]], results: Sequence[str], *, tools: bool
    ) -> None:
        """Open the next round, in which the model is told of the tools or no longer.

        Results that leave no room for an answer are replaced by an error that says so.

        Raises:
            Refusal: even so, the service refuses it.
        """
        before, left = self._prompt if tools else replace(self._prompt, tools=()), self._left()
        self._prompt = with_turn(before, turn, calls, results)
        room = await self._room()
        if room < min(_ROOM, self._service.max_context if left is None else left):
            self._prompt = with_turn(before, turn, calls, [_TOO_LARGE] * len(calls))
            room = await self._room()
        # a call that the request demanded was demanded once, or the model would call for ever
        rule = self._options.calls and replace(self._options.calls, required=False)
        most = None if left is None else max(1, min(left, room))
        options = replace(self._options, max_tokens=most, calls=rule)
        self._round = await self._service.open(self._prompt, options)
        self.prompt_tokens += self._round.prompt_tokens

    async def _room(self) -> int:
        """Tokens that the prompt leaves for an answer; 0 if it does not fit at all."""
        try:
            prompt_ids = await self._service.in_intake(self._service.encode, self._prompt)
        except Refusal:
            return 0
        return self._service.max_context - len(prompt_ids)

    def _left(self) -> int | None:
        """How many tokens the answer may still have."""
        most = self._options.max_tokens
        return None if most is None else max(0, most - self.completion_tokens)

    async def _run(self, calls: Sequence[tuple[str, ToolCall]]) -> list[_Done]:
        """Run the calls of a turn beside one another and judge what they return, in their order."""
        begun = time.monotonic()
        most = self._toolbox.bounds.calls
        outcomes = await asyncio.gather(
            *(self._call(call, _TOO_MANY if place >= most else "") for place, (_, call) in enumerate(calls))
        )
        self._seconds -= time.monotonic() - begun
        self._made |= {call for (_, call), outcome in zip(calls, outcomes, strict=True) if outcome.ok}
        done: list[_Done] = []
        for (id, call), outcome in zip(calls, outcomes, strict=True):
            # each is judged with those before it: an attack may be spread over several results
            done.append(await self._judged(id, call, outcome, [one.text for one in done]))
        return done

    async def _call(self, call: ToolCall, refused: str) -> ToolOutcome:
        if refused or call in self._made:  # a small model may ask the same for ever
            return ToolOutcome(False, (refused or _REPEATED,))
        tool = self._tools.get(call.name)
        if tool is None:
            return ToolOutcome(False, (f"Error: there is no tool {call.name!r}; there are {', '.join(self._tools)}",))
        return await self._toolbox.runner.run(tool, call.arguments, self.request_id, self._seconds)

    async def _judged(self, id: str, call: ToolCall, outcome: ToolOutcome, before: Sequence[str]) -> _Done:
        """Judge one result at the end of the conversation and of the results `before` it."""
        guard = self._service.guard
        conversation = [
            *self._prompt.messages(self._service.tokenizer),
            *({"role": "tool", "content": text} for text in before),
        ]
        result = await self._service.in_intake(judge_result, guard, conversation, outcome.parts)
        status: ToolStatus = "withheld" if result.text == WITHHELD else "ok" if outcome.ok else "error"
        # a name that the model made up must not become a series of its own
        self._service.metrics.tool_calls.labels(call.name if call.name in self._tools else "", status).inc()
        shown = await self._service.in_intake(shown_text, guard, conversation, result.text)
        return _Done(result.text, ToolActivity(id, call.name, call.arguments, status, shown, outcome.seconds))


def shown_text(guard: Guard | None, conversation: Sequence[Mapping[str, str]], text: str) -> str:
    """What the client may see of a result: RAISE-4 over it. A guard that raises shows nothing."""
    if guard is None:
        return text
    try:
        stream = guard.open_output(conversation)
        chunk = stream.feed(text)
        return chunk.text if chunk.stop else chunk.text + stream.finish().text
    except Exception:
        logger.exception("the output guard failed on the result of a tool, which the client is not shown")
        return ""
