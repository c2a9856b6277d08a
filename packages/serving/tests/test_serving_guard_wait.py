"""Claims about answers whose guard reads what several steps gave at once: the same text, neither late nor lost."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from fulmen_core.sampling import SamplingParams
from fulmen_core.tokenizer import StreamDecoder
from fulmen_serving.engine.answer_stream import AnswerStream
from fulmen_serving.engine.answer_text import AnswerText
from fulmen_serving.engine.engine import AnswerEnd, TextDelta
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.engine.stop_strings import StopStrings

LONG = 1000.0  # seconds
SLOW = 0.3  # seconds of a reading, after which the guard may not read for ten
WORDS = ["one", "two", "three", "se", "cret", "secret", "secre", "blue", "hat"]


class Noting:
    """A guard's stream that notes what it reads."""

    def __init__(self, stream, seconds):
        self.stream, self.seconds, self.read = stream, seconds, []

    def feed(self, text):
        self.read.append(text)
        time.sleep(self.seconds)
        return self.stream.feed(text)

    def finish(self):
        return self.stream.finish()


def answer(kit, name, said, *, stops=(), guarded=True, seconds=0.0):
    """An answer that says `said`, and its guard's stream."""
    prompt = kit.tokenizer.encode_chat([{"role": "user", "content": said}], add_generation_prompt=True)
    request = GenerationRequest(name, prompt, SamplingParams(max_tokens=100), (0, 0), frozenset(kit.tokenizer.stop_ids))
    guard = Noting(kit.WordGuard().open_output([]), seconds) if guarded else None
    return (request, AnswerText(StreamDecoder(kit.tokenizer), StopStrings(stops), guard)), guard


async def read(stream):
    """The pieces of an answer, and its end."""
    pieces = []
    async for _, event in stream:
        if not isinstance(event, TextDelta):
            return pieces, event
        pieces.append(event.text)
    raise AssertionError("the stream ended without an end")


def answers(kit, service, asked):
    async def all_of_them():
        streams = [AnswerStream(service.engine, [one]) for one in asked]
        return await asyncio.wait_for(asyncio.gather(*map(read, streams)), 60)

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("wait", [0.0, 0.003, LONG])
def test_every_wait_delivers_the_same_text_for_the_same_reason(kit, wait):
    dice = random.Random()
    said = [" ".join(dice.choices(WORDS, k=dice.randint(1, 12))) for _ in range(24)]
    stops = [dice.choice([(), ("blue hat",), ("two",)]) for _ in said]
    runner = kit.runner(slots=6, context=256, seconds=0.001)
    with kit.service(runner, guard_wait=wait) as service:
        asked = [answer(kit, f"r{i}", text, stops=stops[i])[0] for i, text in enumerate(said)]
        told = answers(kit, service, asked)
    for text, ends, (pieces, end) in zip(said, stops, told, strict=True):
        places = {text.find(stop): "stop" for stop in ends if stop in text}
        if "secret" in text:
            places.setdefault(text.index("secret"), "content_filter")
        at = min(places, default=len(text))
        assert ("".join(pieces), end.reason) == (text[:at], places.get(at, "stop"))
        assert [finding.category for finding in end.findings] == ["leak"] * (end.reason == "content_filter")


def test_the_first_text_and_the_end_wait_for_nothing_and_all_between_is_read_at_once(kit):
    said = "one two three four five six seven eight nine ten"
    with kit.service(guard_wait=LONG) as service:
        asked, guard = answer(kit, "a", said, seconds=SLOW)
        [(pieces, end)] = answers(kit, service, [asked])
    assert ("".join(pieces), end.reason) == (said, "stop")
    assert len(pieces) == len(guard.read) == 2
    assert end.completion_tokens > 10


def test_a_guard_that_takes_little_of_the_time_reads_after_every_step(kit):
    runner = kit.runner(seconds=0.1)  # a reading that takes less than 3 ms may be followed by the next
    with kit.service(runner, guard_wait=LONG) as service:
        asked, guard = answer(kit, "a", "one two three four five six")
        [(_, end)] = answers(kit, service, [asked])
    assert len(guard.read) > end.completion_tokens / 2


def test_an_answer_without_a_guard_comes_after_every_step(kit):
    with kit.service(guard_wait=LONG) as service:
        asked, _ = answer(kit, "a", "one two three four five six", guarded=False)
        [(pieces, end)] = answers(kit, service, [asked])
    assert len(pieces) == end.completion_tokens - 1  # the id that ends a turn has no text


def test_what_waits_is_read_when_the_wait_ends_even_if_no_step_does(kit):
    runner = kit.runner(slots=1)

    async def scenario(service, asked):
        stream = AnswerStream(service.engine, [asked])
        (_, first), (_, second) = await anext(stream), await asyncio.wait_for(anext(stream), 20)
        computed = runner.steps
        runner.gate.set()
        rest, end = await read(stream)
        assert computed < runner.steps
        return first.text, second.text, "".join(rest), end

    with kit.service(runner, guard_wait=0.05) as service:
        asked, guard = answer(kit, "a", "one two three four five six seven eight", seconds=SLOW)
        fourth = len(asked[0].prompt_ids) + 2  # the place of the answer's third token, from which the fourth comes

        def stop_there(batch):
            if batch[0].start == fourth:
                runner.gate.clear()
            return False

        runner.fail_on = stop_there
        first, second, rest, end = asyncio.run(scenario(service, asked))
    assert (first + second + rest, end.reason) == ("one two three four five six seven eight", "stop")
    assert guard.read[:2] == [first, second]


def test_what_waits_of_an_aborted_answer_is_neither_read_nor_delivered(kit):
    runner = kit.runner(slots=2, context=512, seconds=0.02)

    async def scenario(service, asked, other):
        stream = AnswerStream(service.engine, [asked])
        await anext(stream)
        await asyncio.sleep(0.1)  # tokens come, and wait
        stream.close()
        told = await read(AnswerStream(service.engine, [other]))
        await asyncio.sleep(1.2)  # until what waited would have been read
        return told

    with kit.service(runner, guard_wait=1.0) as service:
        asked, guard = answer(kit, "a", " ".join(["one two three"] * 25), seconds=SLOW)
        other, _ = answer(kit, "b", "one two")
        pieces, end = asyncio.run(scenario(service, asked, other))
        assert isinstance(end, AnswerEnd)
        assert "".join(pieces) == "one two"
    assert len(guard.read) == 1
