"""Claims about where a prompt is sent: where its beginning is known, unless that replica is too far ahead."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from fulmen_serving_ray.prefix_memory import BLOCK_CHARACTERS, PrefixMemory, prefix_of

TURN = "a question of some length, long enough for several blocks of characters"


def chat(*turns: str, **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": turn} for turn in turns]} | fields


@given(st.lists(st.text(max_size=80), min_size=1, max_size=6), st.text(max_size=200))
def test_a_conversation_is_the_beginning_of_its_next_turn(turns, more):
    before, after = prefix_of(chat(*turns)), prefix_of(chat(*turns, more))
    assert after[: len(before)] == before


@given(st.text(max_size=300), st.text(max_size=300))
def test_prefixes_agree_exactly_as_far_as_the_blocks_of_the_texts(one, other):
    first, second = (prefix_of({"prompt": text}) for text in (one, other))
    assert len(first) == len(one) // BLOCK_CHARACTERS
    agree = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    common = (min(len(one), len(other)) if agree is None else agree) // BLOCK_CHARACTERS
    assert first[:common] == second[:common]
    assert not set(first[common:]) & set(second[common:])


def test_other_models_keys_and_tools_share_nothing_and_other_requests_have_no_prefix():
    alike = [
        prefix_of(chat(TURN)),
        prefix_of(chat(TURN), salt="key"),
        prefix_of(chat(TURN, model="m")),
        prefix_of(chat(TURN, tools=[{"name": "a tool with a name that fills a whole block"}])),
    ]
    assert len({prefix[0] for prefix in alike}) == 4
    assert prefix_of({"model": "m", "temperature": 1, "input": [1, 2]}) == prefix_of({}) == ()


def test_the_longest_known_beginning_wins_then_the_least_load():
    memory = PrefixMemory(imbalance=4)
    loads = {"a": 0, "b": 0, "c": 0}
    memory.remember("a", prefix_of(chat(TURN)))
    memory.remember("b", prefix_of(chat(TURN, TURN)))
    assert memory.rank(prefix_of(chat(TURN, TURN, TURN)), loads) == ["b", "a", "c"]
    assert memory.rank(prefix_of(chat(TURN, TURN, TURN)), loads | {"b": 4}) == ["b", "a", "c"]
    assert memory.rank(prefix_of(chat(TURN, TURN, TURN)), loads | {"b": 5}) == ["a", "c", "b"]
    assert memory.rank((), {"a": 2, "b": 1, "c": 0}) == ["c", "b", "a"]


def test_routers_that_share_nothing_agree_on_a_new_conversation_and_spread_many():
    loads = dict.fromkeys("abcd", 3)
    prompts = [prefix_of(chat(f"{number} {TURN}")) for number in range(400)]
    first = [PrefixMemory(4).rank(prompt, loads)[0] for prompt in prompts]
    assert first == [PrefixMemory(4).rank(prompt, dict(reversed(loads.items())))[0] for prompt in prompts]
    assert min(Counter(first).values()) > 60


def test_the_oldest_is_forgotten_and_a_replica_that_is_gone_altogether():
    memory = PrefixMemory(imbalance=4, max_blocks=4)
    old, new = prefix_of(chat("old " + TURN)), prefix_of(chat("new " + TURN))
    assert len(old) == len(new) == 2
    memory.remember("a", old)
    memory.remember("a", new)
    memory.remember("a", old)  # used again
    memory.remember("a", prefix_of(chat("newest " + TURN)))
    assert [memory.matched("a", prefix) for prefix in (old, new)] == [2, 0]
    memory.keep_only(["b"])
    assert memory.matched("a", old) == 0


def test_what_is_forgotten_first_is_the_end_of_a_prompt():
    memory = PrefixMemory(imbalance=4, max_blocks=3)
    long = prefix_of(chat(TURN, TURN, TURN))
    assert len(long) > 3
    memory.remember("a", long)
    assert memory.matched("a", long) == 3


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 50), min_size=1), st.integers(0, 10))
def test_every_replica_is_ranked_once_and_the_first_is_never_too_far_ahead(loads, imbalance):
    memory = PrefixMemory(imbalance)
    prefix = prefix_of(chat(TURN))
    memory.remember(max(loads, key=loads.__getitem__), prefix)
    ranked = memory.rank(prefix, loads)
    assert sorted(ranked) == sorted(loads)
    assert loads[ranked[0]] - min(loads.values()) <= imbalance
