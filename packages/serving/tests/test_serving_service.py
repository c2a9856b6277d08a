"""Claims about the guarded service: what is blocked never reaches the model, what is held never reaches the caller."""

from __future__ import annotations

import asyncio

import pytest

from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.engine.engine import AnswerEnd, TextDelta
from fulmen_serving.prompt import ChatPrompt
from fulmen_serving.refusal import Refusal


def ask(service, *texts, **options):
    """Return the texts and ends of the choices, and the answer."""
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]

    async def go():
        answer = await service.open(ChatPrompt(tuple(messages)), AnswerOptions(**options))
        said = [""] * (options.get("choices") or 1)
        try:
            async for index, event in answer:
                if isinstance(event, TextDelta):
                    said[index] += event.text
        finally:
            answer.close()
        return said, [answer.ends[index] for index in range(len(said))], answer

    return asyncio.run(go())


def test_an_allowed_conversation_is_answered_and_counted(kit):
    with kit.service(guard=kit.WordGuard()) as service:
        said, [end], answer = ask(service, "hello there")
    assert said == ["hello there"]
    assert end.reason == "stop"
    assert end.completion_tokens == len(kit.tokenizer.encode("hello there")) + 1
    assert answer.prompt_tokens == len(
        kit.tokenizer.encode_chat([{"role": "user", "content": "hello there"}], add_generation_prompt=True)
    )


def test_a_blocked_conversation_gets_the_safe_completion_and_never_reaches_the_model(kit):
    with kit.service(guard=kit.WordGuard()) as service:
        said, ends, answer = ask(service, "build a bomb", choices=2)
        assert service.engine.core.runner.steps == 0
    assert said == ["I cannot help with that."] * 2
    assert [end.reason for end in ends] == ["content_filter"] * 2
    assert answer.completion_tokens == 0
    assert kit.records[0]["input_action"] == "block"
    assert kit.records[0]["input_category"] == "weapons"


def test_a_rewritten_conversation_is_what_the_model_sees(kit):
    with kit.service(guard=kit.WordGuard()) as service:
        said, _, _ = ask(service, "my pin is 1234")
        [prompt] = set(service.engine.core.runner.prompts)
    assert said == ["my pin is ####"]
    assert "1234" not in prompt


def test_a_forbidden_word_in_the_answer_stops_it_and_frees_the_slot(kit):
    with kit.service(guard=kit.WordGuard()) as service:
        said, [end], _ = ask(service, "the secret is long " * 3)
        assert said == ["the "]
        assert (end.reason, end.category) == ("content_filter", "leak")
        kit.wait_until(lambda: service.engine.admission.live == 0, "the slot is free")
    assert kit.records[0]["answers"][0]["findings"] == ["leak"]


@pytest.mark.parametrize("phase", ["input", "open"])
def test_a_guard_that_raises_before_the_answer_refuses_the_request(kit, phase):
    with kit.service(guard=kit.WordGuard(fails=phase)) as service:
        with pytest.raises(Refusal) as refusal:
            ask(service, "hello")
        assert (refusal.value.status, refusal.value.code) == (500, "guard_failed")
        assert service.engine.core.runner.steps == 0


def test_a_guard_that_raises_in_the_answer_ends_it_without_text(kit):
    with kit.service(guard=kit.WordGuard(fails="output")) as service:
        said, [end], _ = ask(service, "hello")
    assert (said, end.reason) == ([""], "content_filter")


def test_choices_differ_and_repeat_with_the_seed_whatever_runs_beside(kit):
    runner = kit.runner(parrot=False, slots=4)
    with kit.service(runner) as service:
        three, _, _ = ask(service, "go", choices=3, seed=7, max_tokens=10)
        again, _, _ = ask(service, "go", choices=3, seed=7, max_tokens=10)
        one, _, _ = ask(service, "go", seed=7, max_tokens=10)
        other, _, _ = ask(service, "go", seed=8, max_tokens=10)
        free = {ask(service, "go", max_tokens=10)[0][0] for _ in range(3)}
    assert three == again
    assert len(set(three)) == 3
    assert one == three[:1] != other
    assert len(free) == 3


def test_without_max_tokens_an_answer_may_fill_the_context_and_no_more(kit):
    runner = kit.runner(parrot=False, context=64)
    runner.vocab_size = 512
    with kit.service(runner) as service:
        service.model = type(service.model)("random", "test", frozenset())
        _, [end], answer = ask(service, "go")
    assert end.reason == "length"
    assert answer.prompt_tokens + end.completion_tokens == 64


@pytest.mark.parametrize(
    ("text", "options", "status", "code", "param"),
    [
        ("x" * 500, {}, 400, "context_length_exceeded", "messages"),
        ("x", {"max_tokens": 128}, 400, "context_length_exceeded", "max_tokens"),
        ("x", {"choices": 5}, 400, "invalid_value", "n"),
        ("x", {"temperature": -1.0}, 400, "invalid_value", None),
        ("\ud800", {}, 400, "invalid_value", "messages"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(kit, text, options, status, code, param):
    with kit.service() as service, pytest.raises(Refusal) as refusal:
        ask(service, text, **options)
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (status, code, param)


def test_a_full_server_refuses_with_a_time_to_come_back_and_recovers(kit):
    runner = kit.runner(slots=1)

    async def scenario(service):
        runner.gate.clear()
        message = [{"role": "user", "content": "hello"}]
        first = await service.open(ChatPrompt(tuple(message)), AnswerOptions())
        second = await service.open(ChatPrompt(tuple(message)), AnswerOptions())
        with pytest.raises(Refusal) as full:
            await service.open(ChatPrompt(tuple(message)), AnswerOptions())
        runner.gate.set()
        async for _ in first:
            pass
        async for _ in second:
            pass
        first.close()
        second.close()
        return full.value

    with kit.service(runner, waiting=1) as service:
        refusal = asyncio.run(scenario(service))
        assert refusal.status == 429
        assert refusal.retry_after >= 1
        kit.wait_until(lambda: service.engine.admission.live == 0, "there is room again")
        assert ask(service, "again")[0] == ["again"]


def test_a_burst_cannot_pass_the_bound_while_it_is_being_judged(kit):
    async def scenario(service):
        message = [{"role": "user", "content": "hello"}]
        opened = await asyncio.gather(
            *(service.open(ChatPrompt(tuple(message)), AnswerOptions()) for _ in range(30)), return_exceptions=True
        )
        for answer in opened:
            if not isinstance(answer, Refusal):
                answer.close()
        return [answer for answer in opened if isinstance(answer, Refusal)]

    runner = kit.runner(slots=2, seconds=0.05)
    with kit.service(runner, waiting=3) as service:
        refused = asyncio.run(scenario(service))
    assert len(refused) == 25
    assert {refusal.status for refusal in refused} == {429}


def test_the_record_of_a_request_has_its_measures_and_no_text(kit):
    with kit.service(guard=kit.WordGuard()) as service:
        ask(service, "tell 42 quokkas", max_tokens=40)
    [record] = kit.records
    assert record["policy"] == "test-1"
    assert record["input_action"] == "rewrite"
    assert record["completion_tokens"] == record["answers"][0]["tokens"] > 0
    assert (
        0 <= record["answers"][0]["queue_seconds"] <= record["answers"][0]["first_token_seconds"] <= record["seconds"]
    )
    assert 0 < record["input_seconds"] < record["seconds"]
    assert "quokkas" not in repr(record)


def test_the_record_of_a_blocked_request_names_the_detectors_and_not_the_place(kit):
    with kit.service(guard=kit.WordGuard()) as service:
        ask(service, "how to build a bomb")
    [record] = kit.records
    assert record["input_seen"] == [{"detector": "words", "category": "weapons", "label": "", "score": 1.0}]
    assert record["answers"][0]["seen"] == record["input_seen"]
    assert record["input_degraded"] == []


def test_an_answer_that_is_closed_early_is_reported_once(kit):
    async def scenario(service):
        answer = await service.open(ChatPrompt(({"role": "user", "content": "a long story " * 3},)), AnswerOptions())
        await anext(answer)
        answer.close()
        answer.close()

    with kit.service(kit.runner(seconds=0.005)) as service:
        asyncio.run(scenario(service))
        kit.wait_until(lambda: service.engine.admission.live == 0, "the slot is free")
    assert [record["answers"] for record in kit.records] == [[]]


def test_ends_are_events_with_a_reason(kit):
    with kit.service() as service:
        _, [end], _ = ask(service, "hi", max_tokens=1)
    assert isinstance(end, AnswerEnd)
    assert end.reason == "length"
