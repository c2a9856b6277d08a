"""Claims about what the official clients do beyond one call: keys, retries, timeouts, asyncio; one server for both."""

from __future__ import annotations

import asyncio

import anthropic
import httpx
import openai
import pytest

from fulmen_serving.api.edge import Edge
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.key_store import KeyLimits
from fulmen_serving.platform.platform import Platform

SAID = [{"role": "user", "content": "hi"}]


def both(url, key="none", **options):
    """A client of each kind, each as a function that asks for an answer and returns its text."""
    options = {"api_key": key, "max_retries": 0, "timeout": 20} | options
    one = openai.OpenAI(base_url=f"{url}/v1", **options)
    other = anthropic.Anthropic(base_url=url, **options)
    return (
        lambda: one.chat.completions.create(model="parrot", messages=SAID).choices[0].message.content,
        lambda: one.responses.create(model="parrot", input="hi").output_text,
        lambda: other.messages.create(model="parrot", max_tokens=9, messages=SAID).content[0].text,
    )


@pytest.fixture
def platform(tmp_path):
    made = Platform(Database(str(tmp_path / "keys.db")))
    yield made
    made.close()


def test_a_key_opens_every_protocol_in_either_header_and_is_metered(kit, platform):
    secret, key = platform.keys.create("ci")
    with kit.service() as service, kit.server(service, edge=Edge(platform=platform)) as url:
        assert [ask() for ask in both(url, secret)] == ["hi"] * 3  # OpenAI sends Bearer, Anthropic x-api-key
        with anthropic.Anthropic(base_url=url, auth_token=secret, max_retries=0) as client:  # Bearer
            assert client.messages.count_tokens(model="parrot", messages=SAID).input_tokens > 0
        for wrong in ("nonsense", secret[:-1] + "!"):
            for ask, error in zip(
                both(url, wrong),
                (openai.AuthenticationError, openai.AuthenticationError, anthropic.AuthenticationError),
                strict=True,
            ):
                with pytest.raises(error, match="not valid"):
                    ask()
        with anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client:
            with pytest.raises(anthropic.AuthenticationError) as refused:
                client.messages.create(model="parrot", max_tokens=9, messages=SAID)
            assert refused.value.body["error"]["type"] == "authentication_error"
    platform.meter.flush()
    [row] = platform.usage.report(key=key.id)
    assert row.used.completion_tokens == 3 * (len(kit.tokenizer.encode("hi")) + 1)


def test_a_clients_retries_wait_out_a_limit_of_the_key(kit, platform):
    secret, _ = platform.keys.create("slow", limits=KeyLimits(requests_per_minute=60))
    with kit.service() as service, kit.server(service, edge=Edge(platform=platform)) as url:
        for impatient, patient in list(zip(both(url, secret), both(url, secret, max_retries=2), strict=True))[1:]:
            limited = None
            for _ in range(200):
                try:
                    impatient()
                except (openai.RateLimitError, anthropic.RateLimitError) as error:
                    limited = error
                    break
            assert limited is not None
            assert int(limited.response.headers["retry-after"]) >= 1
            assert patient() == "hi"


def test_a_clients_timeout_is_its_own_exception_and_frees_the_slot(kit):
    runner = kit.runner()
    with kit.service(runner) as service, kit.server(service) as url:
        runner.gate.clear()
        for ask, error in zip(
            both(url, timeout=0.3),
            (openai.APITimeoutError, openai.APITimeoutError, anthropic.APITimeoutError),
            strict=True,
        ):
            with pytest.raises(error):
                ask()
        runner.gate.set()
        kit.wait_until(lambda: service.engine.admission.live == 0, "the slots are free")
        assert [ask() for ask in both(url)] == ["hi"] * 3


def test_a_stream_that_the_client_closes_frees_its_slot(kit):
    with kit.service(kit.runner(slots=1, context=512, seconds=0.005)) as service, kit.server(service) as url:
        long = [{"role": "user", "content": "a b c d " * 20}]
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as client:
            stream = client.responses.create(model="parrot", input=long, stream=True)
            for event in stream:
                if event.type == "response.output_text.delta":
                    break
            stream.close()
        kit.wait_until(lambda: service.engine.admission.live == 0, "the response's slot is free")
        with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=20) as client:
            with client.messages.stream(model="parrot", max_tokens=200, messages=long) as stream:
                next(stream.text_stream)
            kit.wait_until(lambda: service.engine.admission.live == 0, "the message's slot is free")
        # neither went on to its end for nobody
        assert 'fulmen_requests_total{end="abort"} 2.0' in httpx.get(f"{url}/metrics").text
        assert 'end="stop"' not in httpx.get(f"{url}/metrics").text


def test_a_server_that_drains_is_an_exception_worth_a_retry(kit):
    with kit.service() as service, kit.server(service) as url:
        service.engine.begin_drain()
        for ask, error in zip(
            both(url),
            (openai.InternalServerError, openai.InternalServerError, anthropic.InternalServerError),
            strict=True,
        ):
            with pytest.raises(error, match="stopping") as refused:
                ask()
            assert refused.value.status_code == 503
            assert int(refused.value.response.headers["retry-after"]) >= 1


def test_many_at_once_over_asyncio_get_their_own_answers(kit):
    async def go(url):
        async with (
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20) as one,
            anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0, timeout=20) as other,
        ):

            async def response(text):
                stream = await one.responses.create(model="parrot", input=text, stream=True)
                return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])

            async def message(text):
                said = [{"role": "user", "content": text}]
                async with other.messages.stream(model="parrot", max_tokens=50, messages=said) as stream:
                    return "".join([piece async for piece in stream.text_stream])

            texts = [f"say {number}" for number in range(12)]
            said = await asyncio.gather(*(response(text) for text in texts), *(message(text) for text in texts))
            assert said == texts * 2

    with kit.service(waiting=64) as service, kit.server(service) as url:
        asyncio.run(go(url))


def test_the_models_are_listed_to_both_clients(kit):
    with kit.service() as service, kit.server(service) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
            assert [model.id for model in client.models.list()] == ["parrot"]
        with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
            [model] = client.models.list()
            assert (model.id, model.type, model.max_input_tokens) == ("parrot", "model", 128)
            assert client.models.retrieve("parrot").created_at.year == 1970
            with pytest.raises(anthropic.NotFoundError, match="'claude' does not exist"):
                client.models.retrieve("claude")
