"""Claims about RAISE behind every protocol: how a refusal looks, and that nothing of it stays in the prefix cache."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.hold_back import HoldBack
from fulmen_safety.policy import load_policy

POLICY = """
extends = "default"
[[detectors]]
name = "terms"
[detectors.settings]
lists = [
    { category = "weapons_cbrne", label = "recipe", terms = ["red mercury"] },
    { category = "hate_discrimination", label = "slur", terms = ["grumble goose"] },
    { category = "privacy_pii", label = "name", terms = ["Ada"] },
    { category = "sex_crime", label = "asked", terms = ["forbidden fruit"] },
]
[detectors.rules.weapons_cbrne]
input = "allow"
[detectors.rules.privacy_pii]
input = "allow"
"""
LONG = "the quick brown fox jumps over the lazy dog and "
STOPPED, REPLACED, REDACTED, BLOCKED = "red mercury", "grumble goose", "Ada", "forbidden fruit"


@pytest.fixture
def guard(tmp_path: Path) -> RaiseGuard:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return RaiseGuard(load_policy(path), Registry.discover())


@pytest.fixture
def serving(kit, guard):
    """A parrot that keeps prefixes, behind RAISE."""
    runner = type(kit.runner())(EngineLimits(2, 512, 64, cached_sequences=4), kit.tokenizer)
    with kit.service(runner, guard=guard) as service, kit.server(service) as url:
        yield service, url


def events(response):
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def chat(url, text, stream):
    asked = {"model": "parrot", "messages": [{"role": "user", "content": text}], "stream": stream}
    response = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60)
    if not stream:
        [choice] = response.json()["choices"]
        return choice["message"]["content"], choice["finish_reason"], choice.get("guard")
    chunks = [event["choices"][0] for event in events(response)]
    said = "".join(chunk["delta"].get("content", "") for chunk in chunks)
    return said, chunks[-1]["finish_reason"], chunks[-1].get("guard")


def messages(url, text, stream):
    asked = {"model": "parrot", "messages": [{"role": "user", "content": text}], "stream": stream, "max_tokens": 200}
    response = httpx.post(f"{url}/v1/messages", json=asked, timeout=60)
    if not stream:
        body = response.json()
        return "".join(block["text"] for block in body["content"]), body["stop_reason"], body.get("guard")
    told = events(response)
    said = "".join(event["delta"]["text"] for event in told if event["type"] == "content_block_delta")
    [end] = [event for event in told if event["type"] == "message_delta"]
    return said, end["delta"]["stop_reason"], end.get("guard")


def responses(url, text, stream):
    asked = {"model": "parrot", "input": text, "stream": stream, "store": False}
    response = httpx.post(f"{url}/v1/responses", json=asked, timeout=60)
    body = events(response)[-1]["response"] if stream else response.json()
    said = "".join(part["text"] for item in body["output"] for part in item["content"])
    if stream:
        deltas = [event["delta"] for event in events(response) if event["type"] == "response.output_text.delta"]
        assert "".join(deltas) == said
    return said, (body["incomplete_details"] or {"reason": "stop"})["reason"], body.get("guard")


REFUSED = {chat: "content_filter", messages: "refusal", responses: "content_filter"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ask", REFUSED)
@pytest.mark.parametrize(
    ("word", "category", "before", "after"),
    [
        (STOPPED, "weapons_cbrne", LONG, ""),
        (REPLACED, "hate_discrimination", LONG, "message"),
        (BLOCKED, "sex_crime", "", "message"),
    ],
)
def test_a_refusal_looks_as_its_protocol_has_it_and_nothing_of_it_is_kept(
    kit, serving, guard, ask, stream, word, category, before, after
):
    service, url = serving
    said, reason, told = ask(url, f"{LONG}{word} and so on {LONG}", stream)
    message = guard.safe_completion(category, "en") if after else ""
    assert (said, reason) == (before + message, REFUSED[ask])
    assert told == {"category": category, "degraded": []}
    kit.wait_until(lambda: not service.engine.core.running, "it has left")
    kit.wait_until(lambda: len(service.engine.core.cache.kept) == 0, "nothing is kept")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("word", [STOPPED, BLOCKED])
def test_a_text_that_is_continued_is_refused_likewise(kit, serving, stream, word):
    service, url = serving
    # the parrot says what the last user turn holds, so the prompt is a conversation; in a text nothing would be one
    turn = {"role": "user", "content": f"{LONG}{word} {LONG}"}
    ids = kit.tokenizer.encode_chat([turn], add_generation_prompt=True)
    asked = {"model": "parrot", "prompt": ids, "max_tokens": 200, "stream": stream}
    response = httpx.post(f"{url}/v1/completions", json=asked, timeout=60)
    last = events(response)[-1]["choices"][0] if stream else response.json()["choices"][0]
    assert last["finish_reason"] == "content_filter"
    assert last["guard"]["category"]
    kit.wait_until(lambda: len(service.engine.core.cache.kept) == 0, "nothing is kept")


def test_of_several_refused_choices_nothing_is_kept(kit, serving):
    service, url = serving
    asked = {"model": "parrot", "messages": [{"role": "user", "content": f"{LONG}{STOPPED} {LONG}"}], "n": 2}
    body = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60).json()
    assert [choice["finish_reason"] for choice in body["choices"]] == ["content_filter"] * 2
    kit.wait_until(lambda: len(service.engine.core.cache.kept) == 0, "nothing is kept")


def test_a_refused_turn_leaves_what_was_kept_of_the_turns_before(kit, serving):
    service, url = serving
    first, _, _ = chat(url, LONG, False)
    assert first == LONG.strip() or first == LONG
    kit.wait_until(lambda: len(service.engine.core.cache.kept) == 1, "it is kept")
    [unit] = service.engine.core.cache.kept
    turns = [("user", LONG), ("assistant", first), ("user", f"{LONG} {STOPPED}")]
    asked = {"model": "parrot", "messages": [{"role": role, "content": text} for role, text in turns]}
    body = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60).json()
    assert body["choices"][0]["finish_reason"] == "content_filter"
    kit.wait_until(lambda: not service.engine.core.running, "it has left")

    def kept():
        return [one.request_id for one in service.engine.core.cache.kept]

    # the model may have ended the answer before the guard refused it: what it kept until then goes at the next command
    kit.wait_until(lambda: body["id"] + "-0" not in kept(), "nothing of it is kept")
    assert kept() in ([], [unit.request_id])


@pytest.mark.parametrize("ask", REFUSED)
def test_what_is_repaired_goes_on(serving, ask):
    said, reason, told = ask(serving[1], f"{LONG}{REDACTED} and so on", True)
    assert (said, reason in ("stop", "end_turn"), told) == (f"{LONG}[NAME] and so on", True, None)


CALL = '<tool_call>\n{"name": "note", "arguments": {"text": "%s"}}\n</tool_call>'
NOTE = {"type": "function", "function": {"name": "note", "parameters": {"type": "object"}}}


def read_by_the_client(url, stream, **asked):
    """Return for each choice what a client reads: reasoning, content, and the arguments of calls out of their JSON."""
    asked = {"model": "parrot", "stream": stream, "n": 2, **asked}
    response = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60)
    said = {0: "", 1: ""}
    arguments = {0: "", 1: ""}
    parts = events(response) if stream else [response.json()]
    for choice in (choice for part in parts for choice in part["choices"]):
        message = choice["delta"] if stream else choice["message"]
        said[choice["index"]] += (message.get("reasoning_content") or "") + (message.get("content") or "")
        for call in message.get("tool_calls") or ():
            arguments[choice["index"]] += call["function"].get("arguments") or ""
    return [(said[index], json.loads(arguments[index] or "{}").get("text", "")) for index in said]


@pytest.fixture
def channels(kit, guard):
    """A parrot that thinks and calls tools, behind RAISE."""
    runner = type(kit.runner())(EngineLimits(2, 2048, 64), kit.tokenizer)
    with kit.service(runner, guard=guard, reasoning=True) as service, kit.server(service) as url:
        yield url


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("written", [r"\u0041da", "A d a", r"\uff21d\u0061", "&#65;da", "A%64a", "A\u200bda"])
def test_no_channel_of_an_answer_gives_a_name_away_however_it_is_escaped(channels, written, stream):
    text = f"<think>\nAsk {written}.\n</think>\n\nIt is {written}, see {CALL % f'for {written}, '}"
    answers = read_by_the_client(channels, stream, messages=[{"role": "user", "content": text}], tools=[NOTE])
    assert answers == [("Ask [NAME].It is [NAME], see", "for [NAME], ")] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_name_is_not_put_together_from_both_sides_of_a_call(channels, stream):
    text = f"It is A{CALL % ''}da."
    answers = read_by_the_client(channels, stream, messages=[{"role": "user", "content": text}], tools=[NOTE])
    assert answers == [("It is A\nda.", "")] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_short_anywhere_ends_before_the_name_or_after_it(channels, stream):
    for limit in range(1, 16):
        asked = {"messages": [{"role": "user", "content": f"so Ada-{LONG}"}], "max_tokens": limit}
        for said, _ in read_by_the_client(channels, stream, **asked):
            assert "so [NAME]-".startswith(said[:10]) or said in ("so A", "so Ad")  # a beginning alone is no name


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", ["a-", "Ada", "da", "-the", "[NAME]", "o A"])
def test_a_stop_string_in_a_name_gives_nothing_of_it_away(channels, stop, stream):
    asked = {"messages": [{"role": "user", "content": f"so Ada-{LONG}"}], "stop": [stop]}
    for said, _ in read_by_the_client(channels, stream, **asked):
        assert "Ada" not in said
        assert said in (f"so [NAME]-{LONG.strip()}", f"so [NAME]-{LONG}", "so ", "s", "so A", "so Ad", "so [NAME]")


def test_the_guard_reads_a_step_of_all_answers_at_once(kit, guard, monkeypatch):
    """As many calls as steps, not as tokens: an answer that is read alone is in a step of its own."""
    sizes, alone = [], []
    together, feed = RaiseGuard.feed_together, HoldBack.feed
    monkeypatch.setattr(
        RaiseGuard, "feed_together", lambda self, pieces: sizes.append(len(pieces)) or together(self, pieces)
    )
    monkeypatch.setattr(HoldBack, "feed", lambda self, text: alone.append(text) or feed(self, text))
    runner = type(kit.runner())(EngineLimits(6, 512, 64), kit.tokenizer)
    with kit.service(runner, guard=guard) as service, kit.server(service) as url:
        asked = {"model": "parrot", "messages": [{"role": "user", "content": LONG * 3}], "n": 6}
        body = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60).json()
    assert {choice["message"]["content"] for choice in body["choices"]} == {LONG * 3}
    tokens = body["usage"]["completion_tokens"]
    assert len(sizes) < tokens / 4
    assert max(sizes) == 6
    assert len(alone) < tokens / 4
