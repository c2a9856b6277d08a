"""Claims about what a client sees of the engine's memory: reused prefixes, whose they are, priorities, explanations."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import openai
import pytest

from fulmen_core.errors import UserError
from fulmen_core.model_directory import ModelDirectory
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_serving.api.edge import Edge
from fulmen_serving.engine.model_plan import ModelPlan
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.platform import Platform
from fulmen_serving.platform.prices import PriceTable

REUSED = "fulmen_reused_prompt_tokens_total "
HISTORY = "the quick brown fox jumps over the lazy dog"


def keeping(kit, *, slots=2, seconds=0.0):
    """A parrot that keeps prefixes."""
    runner = type(kit.runner())
    return runner(EngineLimits(slots, 512, 64, cached_sequences=4), kit.tokenizer, seconds=seconds)


def say(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def test_a_second_turn_reuses_the_first_and_says_so_in_every_protocol(kit):
    with kit.service(keeping(kit)) as service, kit.server(service) as url:
        first = {"model": "parrot", "messages": say(HISTORY)}
        second = {"model": "parrot", "messages": say(HISTORY, HISTORY, "and then?")}
        cold = httpx.post(f"{url}/v1/chat/completions", json=first).json()["usage"]
        warm = httpx.post(f"{url}/v1/chat/completions", json=second).json()["usage"]
        assert cold["prompt_tokens_details"] == {"cached_tokens": 0}
        # all that was computed: the prompt, and the answer but for its last token
        assert warm["prompt_tokens_details"] == {"cached_tokens": cold["total_tokens"] - 1}
        again = httpx.post(f"{url}/v1/messages", json=second | {"max_tokens": 20}).json()["usage"]
        assert again["cache_read_input_tokens"] == warm["prompt_tokens"] - 1
        assert again["input_tokens"] == 1
        asked = {"model": "parrot", "input": [*second["messages"]], "store": False}
        told = httpx.post(f"{url}/v1/responses", json=asked).json()["usage"]
        assert told["input_tokens_details"]["cached_tokens"] == warm["prompt_tokens"] - 1
        metrics = httpx.get(f"{url}/metrics").text
        reused = cold["total_tokens"] - 1 + 2 * (warm["prompt_tokens"] - 1)
        assert f"fulmen_reused_prompt_tokens_total {reused:.1f}" in metrics


def test_an_explanation_says_what_was_found_streamed_or_not(kit):
    with kit.service(keeping(kit)) as service, kit.server(service) as url:
        asked = {"model": "parrot", "messages": say(HISTORY), "explain": True}
        first = httpx.post(f"{url}/v1/chat/completions", json=asked).json()
        [[admitted]] = first["explanation"]
        assert (admitted["what"], admitted["why"]) == ("admitted", "nothing that is kept begins like it")
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        chunks = client.chat.completions.create(
            model="parrot", messages=asked["messages"], stream=True, extra_body={"explain": True}
        )
        [[again]] = list(chunks)[-1].model_extra["explanation"]
        assert again["why"] == f"{first['usage']['prompt_tokens'] - 1} tokens of {first['id']}-0 are kept"
        assert "explanation" not in httpx.post(f"{url}/v1/chat/completions", json=asked | {"explain": False}).json()


def test_of_many_choices_the_prompt_is_computed_once(kit):
    runner = keeping(kit, slots=4)
    with kit.service(runner) as service, kit.server(service) as url:
        asked = {"model": "parrot", "messages": say(HISTORY), "n": 4}
        body = httpx.post(f"{url}/v1/chat/completions", json=asked).json()
        assert [choice["message"]["content"] for choice in body["choices"]] == [HISTORY] * 4
        prompt = body["usage"]["prompt_tokens"]
        assert sum(length for start, length in runner.chunks if start < prompt) == prompt + 3


def test_keys_do_not_share_what_is_computed_for_them(kit, tmp_path):
    platform = Platform(Database(str(tmp_path / "p.db")), PriceTable({}))
    try:
        secrets = [platform.keys.create(name)[0] for name in ("one", "other")]
        with kit.service(keeping(kit)) as service, kit.server(service, edge=Edge(platform)) as url:

            def cached(secret):
                answer = httpx.post(
                    f"{url}/v1/chat/completions",
                    json={"model": "parrot", "messages": say(HISTORY)},
                    headers={"Authorization": f"Bearer {secret}"},
                )
                return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

            assert [cached(secrets[0]), cached(secrets[1])] == [0, 0]
            assert cached(secrets[0]) > 0
    finally:
        platform.close()


def test_nor_do_their_embeddings(kit, tmp_path):
    platform = Platform(Database(str(tmp_path / "p.db")), PriceTable({}))
    try:
        secrets = [platform.keys.create(name)[0] for name in ("one", "other")]
        with kit.service(keeping(kit)) as service, kit.server(service, edge=Edge(platform)) as url:
            service.model = replace(service.model, embeds=True)

            def reused(secret):
                asked = {"model": "parrot", "input": f"{HISTORY} 0123 {HISTORY} 4567 {HISTORY}"}
                headers = {"Authorization": f"Bearer {secret}"}
                assert httpx.post(f"{url}/v1/embeddings", json=asked, headers=headers).status_code == 200
                [line] = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith(REUSED)]
                return float(line.split()[1])

            assert [reused(secrets[0]), reused(secrets[1])] == [0, 0]
            assert reused(secrets[0]) > 0
    finally:
        platform.close()


def test_what_the_guard_refused_is_not_kept(kit):
    with kit.service(keeping(kit), guard=kit.WordGuard()) as service, kit.server(service) as url:
        asked = {"model": "parrot", "messages": say(HISTORY + " secret " + HISTORY)}
        for _ in range(2):
            body = httpx.post(f"{url}/v1/chat/completions", json=asked).json()
            assert body["choices"][0]["finish_reason"] == "content_filter"
            assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
            kit.wait_until(lambda: len(service.engine.core.cache.kept) == 0, "it is forgotten")


def test_the_lower_number_is_served_first(kit):
    async def ends(url):
        async with httpx.AsyncClient(timeout=60) as client:
            order = []

            async def ask(name, priority):
                asked = {"model": "parrot", "messages": say(f"{name} {HISTORY}"), "priority": priority}
                assert (await client.post(f"{url}/v1/chat/completions", json=asked)).status_code == 200
                order.append(name)

            first = asyncio.create_task(ask("first", 0))
            await asyncio.sleep(0.3)
            await asyncio.gather(first, ask("later", 5), ask("sooner", 1))
            return order

    with kit.service(keeping(kit, slots=1, seconds=0.02)) as service, kit.server(service) as url:
        assert asyncio.run(ends(url)) == ["first", "sooner", "later"]


def plan(model, **options):
    limits = EngineLimits(2, 96, 64, cached_sequences=2, draft_tokens=4)
    return ModelPlan(model, "cpu", limits, **options)


def saved(directory, vocab_size):
    """A model that is the same in every run: where rounding alone tells two tokens apart, guesses may choose."""
    import torch

    from fulmen_core.model.checkpoint import save_model
    from fulmen_core.model.presets import load_preset
    from fulmen_core.model.transformer import Transformer

    torch.manual_seed(0)
    save_model(Transformer(load_preset("nano").model_copy(update={"vocab_size": vocab_size})), directory)
    return directory


@pytest.mark.parametrize("speculate", ["", "ngram", "itself"])
def test_guesses_of_either_kind_change_no_answer_of_a_real_model(tmp_path, tokenizer, speculate):
    model = saved(tmp_path, tokenizer.vocab_size)

    def answers(asked):
        _, core = plan(model, speculate=str(model) if asked == "itself" else asked).open(Registry.discover())
        try:
            tokens = {}
            for index, text in enumerate(("one two one two one two one", HISTORY)):
                params = SamplingParams(temperature=0.7 * index, max_tokens=40)
                ids = tokenizer.encode(text)
                core.add(GenerationRequest(str(index), ids, params, (index, 0), frozenset()))
            guessed = confirmed = 0
            while core.has_work:
                outcome = core.step()
                guessed, confirmed = guessed + outcome.guessed_tokens, confirmed + outcome.confirmed_tokens
                for event in outcome.events:
                    tokens.setdefault(event.request_id, []).append(event.token)
            return tokens, guessed, confirmed
        finally:
            core.close()

    tokens, _, confirmed = answers(speculate)
    assert tokens == answers("")[0]
    if speculate == "itself":
        assert confirmed >= 30  # of the greedy answer, all that a step may guess


def test_a_draft_model_of_another_vocabulary_is_refused(nano_directory, tmp_path):
    saved(tmp_path, 300)
    size = ModelDirectory.inspect(nano_directory).vocab_size
    with pytest.raises(UserError, match=f"the draft model has 300 tokens and the model {size}"):
        plan(nano_directory, speculate=str(tmp_path)).open(Registry.discover())


def test_batch_invariance_is_refused_where_it_cannot_be_had(nano_directory):
    registry = Registry.discover()
    with pytest.raises(UserError, match="leave --speculate out"):
        plan(nano_directory, speculate="ngram", batch_invariant=True).open(registry)
