"""Claims about a server that demands keys: who may call it, how often, and that usage is metered exactly."""

from __future__ import annotations

import contextlib
import io
import json
import math
import socket
import sys
import time
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from fulmen_core.cli import main
from fulmen_core.errors import UserError
from fulmen_serving.api.edge import Edge
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.key_store import KeyLimits
from fulmen_serving.platform.platform import BELIEVED_SECONDS, Platform
from fulmen_serving.platform.prices import Price, PriceTable
from fulmen_serving.platform.usage_store import Usage

PATH = "/v1/chat/completions"
ADMIN = "an-admin-key-of-many-characters"


@contextlib.contextmanager
def platform_at(place, **options):
    platform = Platform(Database(place), PriceTable({"parrot": Price(2, 5)}), **options)
    try:
        yield platform
    finally:
        platform.close()


@pytest.fixture
def platform(tmp_path):
    with platform_at(str(tmp_path / "p.db")) as made:
        yield made


@contextlib.contextmanager
def served(kit, tmp_path, **options):
    """A platform of its own and the URL of a server that asks it."""
    with (
        platform_at(str(tmp_path / "p.db"), **options) as platform,
        kit.service() as service,
        kit.server(service, edge=Edge(platform)) as url,
    ):
        yield platform, url


def ask(url, secret, text="hello", **fields):
    body = {"model": "parrot", "messages": [{"role": "user", "content": text}]} | fields
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    return httpx.post(url + PATH, json=body, headers=headers)


def metered(platform):
    platform.meter.flush()
    return [row.used for row in platform.usage.report()]


def test_every_v1_route_demands_a_key_and_health_does_not(kit, platform):
    secret, _ = platform.keys.create("ci")
    with kit.service() as service, kit.server(service, edge=Edge(platform)) as url:
        for method, path in [("GET", "/v1/models"), ("POST", PATH), ("GET", "/v1/none"), ("POST", "/tokenize")]:
            for header in [{}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {secret}"}]:
                answer = httpx.request(method, url + path, headers=header)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"
            for wrong in ["fm-" + "x" * 43, "sk-1", secret[:-1], secret + "x"]:
                answer = httpx.request(method, url + path, headers={"Authorization": f"Bearer {wrong}"})
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"]:
            assert httpx.get(url + path).status_code == 200
        assert httpx.get(url + "/v1/models", headers={"x-api-key": secret}).status_code == 200
        with openai.OpenAI(base_url=url + "/v1", api_key=secret, max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["parrot"]
        stranger = openai.OpenAI(base_url=url + "/v1", api_key="fm-no", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_a_revoked_and_an_expired_key_are_refused(kit, tmp_path):
    skew = [0.0]
    with served(kit, tmp_path, clock=lambda: time.time() + skew[0]) as (platform, url):
        revoked, key = platform.keys.create("one")
        expiring, _ = platform.keys.create("two", expires=int(time.time()) + 1000)
        assert [ask(url, secret).status_code for secret in (revoked, expiring)] == [200, 200]
        platform.keys.revoke(key.id)  # as another process would
        skew[0] = 1001
        answer = ask(url, expiring)
        assert (answer.status_code, answer.json()["error"]["message"]) == (401, "The API key is expired")
        deadline = time.monotonic() + BELIEVED_SECONDS + 5
        while ask(url, revoked).status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_metered_is_what_the_answer_says(kit, place, stream):
    with platform_at(place) as platform:
        secret, key = platform.keys.create("ci")
        usages = []
        with (
            kit.service() as service,
            kit.server(service, edge=Edge(platform)) as url,
            openai.OpenAI(base_url=url + "/v1", api_key=secret, max_retries=0) as client,
        ):
            for text, more in [("hello", {}), ("the quick brown fox", {"stop": "brown"}), ("one two", {"n": 3})]:
                asked = {"model": "parrot", "messages": [{"role": "user", "content": text}], **more}
                if stream:
                    options = {"include_usage": True}
                    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=options))
                    usages.append(chunks[-1].usage)
                else:
                    usages.append(client.chat.completions.create(**asked).usage)
        platform.close()  # nobody flushed: what is metered is written when the server stops
        prompt = sum(usage.prompt_tokens for usage in usages)
        completion = sum(usage.completion_tokens for usage in usages)
        with platform_at(place) as after:
            [row] = after.usage.report()
            assert row.used == Usage(3, prompt, completion, 2 * prompt + 5 * completion)
            assert after.keys.list()[0].last_used >= key.created


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_client_that_leaves_is_metered_for_what_was_computed(kit, platform, stream, phase):
    secret, _ = platform.keys.create("ci")
    runner = kit.runner(slots=1, parrot=False, seconds=0.01, budget=8, context=4000)
    fed = []
    runner.fail_on = lambda batch: fed.extend(token for share in batch for token in share.token_ids)
    with kit.service(runner) as service, kit.server(service, edge=Edge(platform)) as url:
        service.model = type(service.model)("parrot", "test", frozenset())  # no token ends an answer
        text = "a long prompt of many words " * (20 if phase == "prefill" else 1)
        prompt = len(service.tokenizer.encode_chat([{"role": "user", "content": text}], add_generation_prompt=True))
        body = json.dumps(
            {"model": "parrot", "messages": [{"role": "user", "content": text}], "stream": stream}
        ).encode()
        parts = urlsplit(url)
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(head.encode() + body)
            wanted = 3 if phase == "prefill" else prompt // 8 + 6
            kit.wait_until(lambda: runner.steps >= wanted, "it computes")
        kit.wait_until(lambda: service.engine.admission.live == 0, "the slot is free")
        kit.wait_until(lambda: metered(platform) != [], "it is metered")
        [used] = metered(platform)
        if phase == "prefill":
            assert (used.prompt_tokens, used.completion_tokens) == (len(fed), 0)
            assert 0 < len(fed) < prompt
        else:  # every token fed after the prompt was generated, and the last one is generated but not fed
            assert (used.prompt_tokens, used.completion_tokens) == (prompt, len(fed) - prompt + 1)
            assert used.completion_tokens > 1


def test_a_server_that_stops_meters_what_it_cuts_off(kit, tmp_path):
    place = str(tmp_path / "p.db")
    runner = kit.runner(slots=2, parrot=False, seconds=0.01, context=4000)
    with platform_at(place, flush_seconds=1000) as platform:
        secret, _ = platform.keys.create("ci")
        with kit.service(runner) as service, kit.server(service, edge=Edge(platform)) as url:
            service.model = type(service.model)("parrot", "test", frozenset())
            with httpx.stream(
                "POST",
                url + PATH,
                json={"model": "parrot", "messages": [{"role": "user", "content": "go"}], "stream": True},
                headers={"Authorization": f"Bearer {secret}"},
            ) as response:
                lines = response.iter_lines()
                while '"content":""' in (line := next(lines)) or not line:
                    pass
                service.close()
                list(lines)
    with platform_at(place) as after:
        [row] = after.usage.report()
        assert (row.used.requests, row.used.prompt_tokens > 0, row.used.completion_tokens > 0) == (1, True, True)


def test_a_blocked_prompt_is_metered_as_its_usage_says(kit, platform):
    secret, _ = platform.keys.create("ci")
    with kit.service(guard=kit.WordGuard()) as service, kit.server(service, edge=Edge(platform)) as url:
        answer = ask(url, secret, "a bomb").json()
        assert answer["choices"][0]["finish_reason"] == "content_filter"
        [used] = metered(platform)
        assert (used.prompt_tokens, used.completion_tokens) == (answer["usage"]["prompt_tokens"], 0)


def test_the_terminal_chat_sends_its_key_and_says_what_to_do_without_one(kit, tmp_path, monkeypatch, capsys):
    with served(kit, tmp_path) as (platform, url):
        secret, _ = platform.keys.create("me")

        def chat(*arguments):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\n"), encoding="utf-8"))
            code = main(["chat", "--url", url, *arguments])
            return code, *capsys.readouterr()

        assert chat("--api-key", secret)[:2] == (0, "hello\n")
        code, _, said = chat()
        assert code == 2
        assert "answers 401 to GET /v1/models: give its API key, --api-key or FULMEN_API_KEY" in said
        assert chat("--api-key", "fm-ключ")[2].count("\n") == 1
        monkeypatch.setenv("FULMEN_API_KEY", secret)
        assert chat()[:2] == (0, "hello\n")


def test_requests_per_minute_are_limited_and_told_as_openai_tells_them(kit, tmp_path):
    now = [1000.0]
    with served(kit, tmp_path, monotonic=lambda: now[0]) as (platform, url):
        secret, _ = platform.keys.create("ci", limits=KeyLimits(requests_per_minute=2))
        other, _ = platform.keys.create("other")
        first, second, third = (ask(url, secret) for _ in range(3))
        assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert [first.headers["x-ratelimit-remaining-requests"], second.headers["x-ratelimit-remaining-requests"]] == [
            "1",
            "0",
        ]
        assert second.headers["x-ratelimit-reset-requests"] == "1m0s"
        assert third.headers["retry-after"] == "30"
        assert third.json()["error"] == {
            "message": "This API key may send 2 requests per minute",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        assert "x-ratelimit-limit-tokens" not in first.headers
        assert ask(url, other).status_code == 200
        now[0] += 30
        assert [ask(url, secret).status_code for _ in range(2)] == [200, 429]


def test_tokens_per_minute_are_limited_by_what_was_used(kit, tmp_path):
    now = [1000.0]
    with served(kit, tmp_path, monotonic=lambda: now[0]) as (platform, url):
        secret, _ = platform.keys.create("ci", limits=KeyLimits(tokens_per_minute=45))
        first = ask(url, secret)
        used = first.json()["usage"]["total_tokens"]
        prompt = first.json()["usage"]["prompt_tokens"]
        assert 45 - used < prompt, "the test's numbers"
        refused = ask(url, secret)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert refused.headers["x-ratelimit-remaining-tokens"] == str(45 - used)
        assert refused.headers["retry-after"] == str(math.ceil((prompt - (45 - used)) * 60 / 45))
        now[0] += int(refused.headers["retry-after"])
        assert ask(url, secret).status_code == 200


def test_a_quota_ends_with_the_month(kit, tmp_path):
    skew = [0.0]
    with served(kit, tmp_path, clock=lambda: time.time() + skew[0]) as (platform, url):
        secret, _ = platform.keys.create("ci", "acme")
        colleague, _ = platform.keys.create("another", "acme")
        stranger, _ = platform.keys.create("stranger", "other")
        platform.keys.set_quota("acme", 45)
        assert ask(url, secret).status_code == 200
        refused = ask(url, colleague)
        assert (refused.status_code, refused.json()["error"]["type"]) == (429, "insufficient_quota")
        seconds = int(refused.headers["retry-after"])
        assert 0 < seconds <= 31 * 86_400
        assert ask(url, stranger).status_code == 200
        skew[0] = seconds + 1
        assert ask(url, colleague).status_code == 200


def test_a_quota_counts_what_other_servers_used(kit, tmp_path):
    place = str(tmp_path / "p.db")
    with platform_at(place) as one, platform_at(place) as two, kit.service() as service:
        secret, _ = one.keys.create("ci")
        one.keys.set_quota("default", 45)
        with kit.server(service, edge=Edge(one)) as url:
            assert ask(url, secret).status_code == 200
        one.meter.flush()
        with kit.server(service, edge=Edge(two)) as url:
            assert ask(url, secret).status_code == 429


def test_requests_at_once_are_limited_and_a_place_becomes_free(kit, platform):
    secret, _ = platform.keys.create("ci", limits=KeyLimits(max_concurrent=1))
    runner = kit.runner(seconds=0.01)
    with kit.service(runner) as service, kit.server(service, edge=Edge(platform)) as url:
        runner.gate.clear()
        body = {"model": "parrot", "messages": [{"role": "user", "content": "hello"}], "stream": True}
        headers = {"Authorization": f"Bearer {secret}"}
        with httpx.stream("POST", url + PATH, json=body, headers=headers):
            assert ask(url, secret).status_code == 429
            runner.gate.set()
        kit.wait_until(lambda: ask(url, secret).status_code == 200, "the place is free")


def test_a_database_that_fails_lets_nobody_in_and_keeps_the_usage(kit, tmp_path, caplog):
    path = tmp_path / "p.db"
    now = [0.0]
    with (
        platform_at(str(path), flush_seconds=1000, monotonic=lambda: now[0]) as platform,
        kit.service() as service,
        kit.server(service, edge=Edge(platform)) as url,
    ):
        secret, _ = platform.keys.create("ci")
        assert ask(url, secret).status_code == 200
        with platform.database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE fulmen_keys RENAME TO gone")
        now[0] += BELIEVED_SECONDS + 1
        assert ask(url, secret).status_code == 503
        assert not platform.meter.flush()
        with platform.database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO fulmen_keys")
        assert ask(url, secret).status_code == 200
        [used] = metered(platform)
        assert used.requests == 2
    assert secret not in caplog.text


def test_the_admin_routes_make_list_revoke_and_report(kit, platform):
    edge = Edge(platform, admin_key=ADMIN)
    with (
        kit.service() as service,
        kit.server(service, edge=edge) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ADMIN}"}) as admin,
    ):
        made = admin.post("/admin/v1/keys", json={"name": "web", "organisation": "acme", "expires": "1d"})
        assert made.status_code == 201
        secret = made.json()["key"]
        assert ask(url, secret).status_code == 200
        listed = admin.get("/admin/v1/keys", params={"organisation": "acme"})
        assert [key["id"] for key in listed.json()["data"]] == [made.json()["id"]]
        assert secret not in listed.text
        report = admin.get("/admin/v1/usage", params={"key": made.json()["id"], "hourly": "true"}).json()
        assert report["total"]["requests"] == 1
        assert report["data"][0]["hour"].endswith(":00:00Z")
        for path in ("/admin/v1/keys", "/admin/v1/usage"):
            with_key = httpx.get(url + path, headers={"Authorization": f"Bearer {secret}"})
            assert (with_key.status_code, with_key.json()["error"]["code"]) == (403, "insufficient_permissions")
            assert httpx.get(url + path).status_code == 401
            assert httpx.get(url + path, headers={"Authorization": "Bearer x"}).status_code == 401
        assert admin.put("/admin/v1/organisations/acme", json={"tokens_per_month": 1}).status_code == 200
        assert ask(url, secret).status_code == 429
        assert admin.post(f"/admin/v1/keys/{made.json()['id']}/revoke").json()["state"] == "revoked"
        assert ask(url, secret).status_code == 401  # at once
        for method, path, sent, words in [
            ("POST", "/admin/v1/keys", {}, "'name' is missing"),
            ("POST", "/admin/v1/keys", {"name": "x", "nam": 1}, "did you mean 'name'"),
            ("POST", "/admin/v1/keys", {"name": "x", "max_concurrent": 0}, "0 concurrent requests"),
            ("POST", "/admin/v1/keys", {"name": "x", "expires": "soon"}, "neither a time nor a span"),
            ("POST", "/admin/v1/keys/key_0/revoke", None, "there is no key key_0"),
            ("PUT", "/admin/v1/organisations/acme", {"tokens_per_month": -1}, "does not lie between"),
            ("GET", "/admin/v1/usage?sinc=1d", None, "did you mean 'since'"),
            ("GET", "/admin/v1/usage?organisation=acne", None, "did you mean 'acme'"),
        ]:
            answer = admin.request(method, path, json=sent)
            assert answer.status_code == 400
            assert words in answer.json()["error"]["message"]


def test_without_an_admin_key_there_are_no_admin_routes(kit, platform):
    secret, _ = platform.keys.create("ci")
    with kit.service() as service, kit.server(service, edge=Edge(platform)) as url:
        answer = httpx.get(url + "/admin/v1/keys", headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == 404


def test_pages_of_a_named_origin_may_call_and_read_the_limits(kit, platform):
    edge = Edge(platform, cors_origins=("https://chat.example.org",))
    with kit.service() as service, kit.server(service, edge=edge) as url:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        before = httpx.options(url + PATH, headers={"Origin": "https://chat.example.org", **asked})
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, "https://chat.example.org")
        assert httpx.options(url + PATH, headers={"Origin": "https://evil.example", **asked}).status_code == 400
        refused = httpx.get(url + "/v1/models", headers={"Origin": "https://chat.example.org"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
            401,
            "https://chat.example.org",
        )
        assert "x-ratelimit-remaining-tokens" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_too_long_ends_frees_its_slot_and_is_metered(kit, platform, stream):
    secret, _ = platform.keys.create("ci")
    runner = kit.runner(slots=1, parrot=False, seconds=0.01, context=4000)
    edge = Edge(platform, request_seconds=0.3)
    with kit.service(runner) as service, kit.server(service, edge=edge) as url:
        service.model = type(service.model)("parrot", "test", frozenset())
        answer = ask(url, secret, stream=stream)
        if stream:
            last = answer.text.strip().splitlines()[-1]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "request_timeout"
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "request_timeout")
        kit.wait_until(lambda: service.engine.admission.live == 0, "the slot is free")
        kit.wait_until(lambda: metered(platform) != [], "it is metered")
        assert metered(platform)[0].completion_tokens > 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"admin_key": ADMIN}, "nothing to administer"),
        ({"cors_origins": ("example.org",)}, "is no origin"),
        ({"cors_origins": ("https://example.org/",)}, "is no origin"),
        ({"request_seconds": 0}, "is no time"),
        ({"request_seconds": float("nan")}, "is no time"),
    ],
)
def test_a_setting_that_does_not_fit_is_a_sentence(fields, words):
    with pytest.raises(UserError, match=words):
        Edge(**fields)


def test_a_short_admin_key_is_refused_without_being_shown(platform):
    with pytest.raises(UserError, match="fewer than 24 characters") as refused:
        Edge(platform, admin_key="hunter2")
    assert "hunter2" not in str(refused.value)
