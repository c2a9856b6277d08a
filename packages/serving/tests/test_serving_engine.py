"""Claims about the running engine: threads, aborts, failures and the end, over a runner that notices every mix-up."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from fulmen_core.generation import generate
from fulmen_core.sampling import SamplingParams
from fulmen_core.tokenizer import StreamDecoder
from fulmen_serving.engine.answer_stream import AnswerStream
from fulmen_serving.engine.answer_text import AnswerText
from fulmen_serving.engine.core import TokenEvent
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure, EngineStopped, TextDelta
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.engine.stop_strings import StopStrings


def answer(kit, name, prompt_ids, *, seed=0, stops=(), stop_ids=None, **params):
    asked = SamplingParams(**{"max_tokens": 8} | params)
    ids = kit.tokenizer.stop_ids if stop_ids is None else stop_ids
    request = GenerationRequest(name, prompt_ids, asked, (seed, 0), frozenset(ids))
    return request, AnswerText(StreamDecoder(kit.tokenizer), StopStrings(stops), None)


async def read(stream):
    text = ""
    async for _, event in stream:
        if isinstance(event, TextDelta):
            text += event.text
        else:
            return text, event
    raise AssertionError("the stream ended without an end")


def test_forty_answers_at_once_with_aborts_equal_each_request_alone(kit):
    runner = kit.runner(parrot=False, slots=5, context=96, budget=16)
    tokenizer, dice = kit.tokenizer, random.Random()
    asked = {
        f"r{i}": ([dice.randrange(16, 512) for _ in range(dice.randint(1, 60))], i, dice.randint(1, 30))
        for i in range(40)
    }
    aborted = {name for name in asked if dice.random() < 0.3}

    async def client(engine, name):
        prompt, seed, max_tokens = asked[name]
        await asyncio.sleep(dice.random() * 0.02)
        stream = AnswerStream(engine, [answer(kit, name, prompt, seed=seed, max_tokens=max_tokens)])
        if name in aborted:
            async for _ in stream:
                break
            stream.close()
            return None
        return await read(stream)

    async def all_clients(engine):
        return await asyncio.gather(*(client(engine, name) for name in asked))

    with kit.service(runner, waiting=64) as service:
        results = dict(zip(asked, asyncio.run(all_clients(service.engine)), strict=True))
        kit.wait_until(lambda: service.engine.admission.live == 0, "all requests ended")
        assert runner.slots == {}
    for name, (prompt, seed, max_tokens) in asked.items():
        if name in aborted:
            continue
        params = SamplingParams(max_tokens=max_tokens, seed=seed)
        [ids] = generate(kit.runner(parrot=False, context=96), [prompt], params, tokenizer.stop_ids)
        text, end = results[name]
        assert text == tokenizer.decode(ids)
        assert end.completion_tokens == len(ids)
        assert end.reason == ("stop" if ids[-1] in tokenizer.stop_ids else "length")


def test_an_abort_frees_the_slot_before_the_next_step(kit):
    runner = kit.runner(parrot=False, slots=1)

    async def scenario(service):
        first = AnswerStream(service.engine, [answer(kit, "first", [20, 21], max_tokens=100, stop_ids=())])
        await anext(first)
        runner.gate.clear()
        await asyncio.sleep(0.05)  # the step under way comes to its end, the next one to the gate
        second = AnswerStream(service.engine, [answer(kit, "second", [30], max_tokens=2)])
        first.close()
        steps = runner.steps
        runner.gate.set()
        _, end = await read(second)
        # at most the step that was under way when the abort came, then the two steps of the second answer
        assert runner.steps - steps <= 3
        return end

    with kit.service(runner) as service:
        assert asyncio.run(scenario(service)).completion_tokens == 2


def test_a_request_aborted_while_it_waits_never_reaches_the_model(kit):
    runner = kit.runner(parrot=False, slots=1)
    fed = []
    runner.fail_on = lambda batch: fed.extend(share.token_ids[0] for share in batch)

    async def scenario(service):
        first = AnswerStream(service.engine, [answer(kit, "first", [20], max_tokens=30)])
        waiting = AnswerStream(service.engine, [answer(kit, "waiting", [333], max_tokens=30)])
        waiting.close()
        await read(first)

    with kit.service(runner) as service:
        asyncio.run(scenario(service))
        kit.wait_until(lambda: service.engine.admission.live == 0, "both requests ended")
    assert 333 not in fed


def test_a_stop_string_ends_the_generation_and_frees_the_slot(kit):
    with kit.service() as service:
        prompt = kit.tokenizer.encode_chat([{"role": "user", "content": "one two three"}], add_generation_prompt=True)

        async def scenario():
            stream = AnswerStream(service.engine, [answer(kit, "a", prompt, stops=["wo t"], max_tokens=60)])
            return await read(stream)

        text, end = asyncio.run(scenario())
        assert (text, end.reason) == ("one t", "stop")
        kit.wait_until(lambda: service.engine.admission.live == 0, "the slot is free")
        assert service.engine.core.runner.slots == {}


def test_a_failing_step_is_told_to_those_it_hit_and_the_engine_goes_on(kit):
    runner = kit.runner(parrot=False, slots=1)
    runner.fail_on = lambda batch: 99 in batch[0].token_ids

    async def scenario(service):
        _, failed = await read(AnswerStream(service.engine, [answer(kit, "bad", [99])]))
        _, well = await read(AnswerStream(service.engine, [answer(kit, "good", [20])]))
        return failed, well

    with kit.service(runner) as service:
        failed, well = asyncio.run(scenario(service))
    assert isinstance(failed, AnswerFailure)
    assert "RuntimeError: out of memory" in failed.message
    assert isinstance(well, AnswerEnd)


def test_what_was_said_in_a_step_that_ends_in_an_error_is_told_before_the_error(kit):
    async def client(engine):
        stream = AnswerStream(engine, [answer(kit, "r", [20], max_tokens=2)])
        engine._tokens.put([TokenEvent("r", 300, None), TokenEvent("r", None, "error", "the step failed")])
        return await read(stream)

    with kit.service(kit.runner(parrot=False, seconds=0.2)) as service:
        text, end = asyncio.run(client(service.engine))
        kit.wait_until(lambda: service.engine.admission.live == 0, "the request ended")
        kit.wait_until(lambda: not service.engine.core.has_work, "the model is done with it")
    assert text == kit.tokenizer.decode([300])
    assert isinstance(end, AnswerFailure)


def test_a_defect_of_the_engine_fails_what_is_live_and_is_told(kit, caplog):
    runner = kit.runner(parrot=False)
    runner.release = lambda slot: 1 / 0

    async def scenario(service):
        return await read(AnswerStream(service.engine, [answer(kit, "a", [20], max_tokens=1)]))

    with kit.service(runner) as service:
        _, end = asyncio.run(scenario(service))
        kit.wait_until(lambda: bool(service.engine.fault), "the fault is known")
        assert "ZeroDivisionError" in service.engine.fault
        assert isinstance(end, AnswerEnd | AnswerFailure)
        with pytest.raises(EngineStopped, match="ZeroDivisionError"):
            service.engine.submit([answer(kit, "b", [20])], lambda name, event: None)
        service.engine.core.running.clear()  # what broke stays broken; the kit checks the invariants of sound engines
        service.engine.core.cache.slots.__init__(4)


def test_closing_fails_what_is_live_and_refuses_what_comes(kit):
    runner = kit.runner(parrot=False, seconds=0.01, context=4000)
    events, ended = [], threading.Event()

    def sink(name, event):
        events.append(event)
        if not isinstance(event, TextDelta):
            ended.set()

    with kit.service(runner) as service:
        service.engine.submit([answer(kit, "a", [20], max_tokens=3900, stop_ids=())], sink)
        kit.wait_until(lambda: runner.steps > 1, "it runs")
        service.close()
        assert ended.wait(5)
        assert isinstance(events[-1], AnswerFailure)
        assert "stopping" in events[-1].message
        with pytest.raises(EngineStopped):
            service.engine.submit([answer(kit, "b", [20])], sink)


def test_a_reader_whose_event_loop_is_gone_does_not_hold_its_slot(kit):
    runner = kit.runner(parrot=False, seconds=0.005, context=4000)

    async def scenario(service):
        stream = AnswerStream(service.engine, [answer(kit, "a", [20], max_tokens=3900, stop_ids=())])
        await anext(stream)

    with kit.service(runner) as service:
        asyncio.run(scenario(service))  # never closes the stream
        kit.wait_until(lambda: service.engine.admission.live == 0, "the abandoned request is freed")
        assert runner.steps < 3900
