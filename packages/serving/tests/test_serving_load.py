"""Claims about `fulmen bench serve`: against a real HTTP server that sleeps known times, and against `fulmen serve`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fulmen_core.cli import main
from fulmen_serving.load.client_health import ClientHealth
from fulmen_serving.load.report import Slo, summarise
from fulmen_serving.load.target import Timed
from fulmen_serving.load.traffic import Traffic, WordLength, user_messages

PROBES = 2  # questions from which the client learns how long words are


@dataclass
class Plan:
    """How one answer goes."""

    first: float = 0.0
    gap: float = 0.0
    tokens: int = 4
    usage: bool = True
    status: int = 200
    ending: str = "done"  # "cut": the connection ends early; "error": an error object in the stream


class Sleeper:
    """A server whose `plan(number)` says how the number-th question is answered; it keeps bodies and arrival times."""

    def __init__(self, plan):
        self.plan, self.bodies, self.arrivals = plan, [], []
        lock = threading.Lock()
        sleeper = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                found = self.path == "/v1/models"
                self.send_response(200 if found else 404)
                self.end_headers()
                self.wfile.write(b'{"data": [{"id": "sleeper"}]}' if found else b"{}")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(sleeper.bodies)
                    sleeper.bodies.append(body)
                    sleeper.arrivals.append(time.perf_counter())
                plan = sleeper.plan(number)
                self.send_response(plan.status)
                self.end_headers()
                if plan.status != 200:
                    self.wfile.write(b'{"error": {"message": "the server is full"}}')
                    return
                chat = "messages" in body
                prompt = "\n".join(m["content"] for m in body["messages"]) if chat else body["prompt"]
                if chat:  # as real servers do: the role comes before there is a token
                    self.event({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
                for index in range(plan.tokens):
                    time.sleep(plan.gap if index else plan.first)
                    text = f"t{index} "
                    self.event({"choices": [{"delta": {"content": text}} if chat else {"text": text}]})
                if plan.ending == "cut":
                    return
                if plan.ending == "error":
                    self.event({"error": {"message": "out of memory"}})
                    return
                self.event({"choices": [{"delta": {}, "text": "", "finish_reason": "length"}]})
                if plan.usage:
                    counts = {"prompt_tokens": 2 * len(prompt.split()) + 5, "completion_tokens": 3 * plan.tokens}
                    self.event({"choices": [], "usage": counts})
                self.wfile.write(b"data: [DONE]\n\n")

            def event(self, body):
                self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
                self.wfile.flush()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def bench(capsys):
    """Serve by a plan, run `fulmen bench serve --json` against it, return the server and the report."""
    with contextlib.ExitStack() as stack:

        def run(plan, *options):
            sleeper = Sleeper(plan)
            thread = threading.Thread(target=sleeper.server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(thread.join)
            stack.callback(sleeper.server.server_close)
            stack.callback(sleeper.server.shutdown)
            code = main(["bench", "serve", "--base-url", sleeper.url, "--json", *options])
            out, err = capsys.readouterr()
            return sleeper, code, json.loads(out) if code == 0 else err

        yield run


def test_latencies_are_those_that_the_server_slept(bench):
    plan = Plan(first=0.15, gap=0.04, tokens=5)
    _, _, report = bench(lambda number: plan, "--clients", "2", "--requests", "6")
    # a busy machine wakes late, never early
    assert 149 <= report["ttft_ms"]["p50"] < 300
    assert 30 <= report["itl_ms"]["p50"] < 120
    assert report["e2e_ms"]["p50"] >= 309
    assert report["completed"] == 6
    assert report["requests_per_s"] == pytest.approx(6 / report["duration_s"])


def test_percentiles_find_the_slow_answers(bench):
    plan = lambda number: Plan(first=0.6 if number % 5 == 0 else 0.0)  # noqa: E731
    _, _, report = bench(plan, "--clients", "1", "--requests", "10", "--warmup", "0")
    assert report["ttft_ms"]["p50"] < 400
    assert report["ttft_ms"]["p95"] >= 599


def test_warm_up_is_in_no_figure(bench):
    plan = lambda number: Plan(first=0.8 if PROBES <= number < PROBES + 3 else 0.0)  # noqa: E731
    sleeper, _, report = bench(plan, "--clients", "3", "--requests", "4", "--warmup", "3")
    assert len(sleeper.bodies) == PROBES + 3 + 4
    assert report["completed"] == 4
    assert report["ttft_ms"]["max"] < 700


@pytest.mark.parametrize(("usage", "tokens", "counted"), [(True, 12, "server"), (False, 4, "chunks")])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_tokens_are_counted_by_the_server_if_it_counts(bench, api, usage, tokens, counted):
    _, _, report = bench(lambda number: Plan(usage=usage), "--api", api, "--requests", "3")
    assert report["output_tokens"] == 3 * tokens
    assert report["tokens_counted_by"] == counted
    assert report["traffic"]["lengths_from"] == ("server" if usage else "guess")


def test_prompts_have_the_length_asked_for_in_the_servers_tokens(bench):
    _, _, report = bench(lambda number: Plan(), "--prompt-tokens", "105", "--requests", "3")
    assert report["prompt_tokens_mean"] == 105


def test_errors_are_counted_by_kind_and_in_nothing_else(bench):
    kinds = [Plan(status=429), Plan(ending="cut"), Plan(ending="error"), Plan(tokens=0), Plan()]
    plan = lambda number: kinds[number % 5] if number >= PROBES else Plan()  # noqa: E731
    _, _, report = bench(plan, "--requests", "10", "--warmup", "0", "--slo-e2e-ms", "60000")
    assert report["errors"] == {"http_429": 2, "broke_off": 2, "error_in_stream": 2, "no_text": 2}
    assert report["completed"] == 2
    assert report["output_tokens"] == 2 * 12
    assert report["goodput"]["share"] == 0.2


def test_an_answer_that_takes_too_long_is_a_timeout(bench):
    plan = lambda number: Plan(gap=0.2 if number == PROBES else 0.0, tokens=6)  # noqa: E731
    _, _, report = bench(plan, "--requests", "2", "--warmup", "0", "--timeout", "0.6")
    assert report["errors"] == {"timeout": 1}


def test_a_later_turn_contains_the_first_and_its_answer(bench):
    sleeper, _, report = bench(
        lambda number: Plan(), "--traffic", "multi-turn", "--turns", "3", "--requests", "2", "--warmup", "0"
    )
    assert len(report["ttft_by_turn_ms"]) == 3
    conversations = {}
    for body in sleeper.bodies[PROBES:]:
        conversations.setdefault(body["messages"][0]["content"], []).append(body["messages"])
    for turns in conversations.values():
        assert [len(messages) for messages in turns] == [1, 3, 5]
        for before, after in itertools.pairwise(turns):
            assert after[: len(before)] == before
            assert after[len(before)] == {"role": "assistant", "content": "t0 t1 t2 t3 "}


def test_later_messages_can_be_of_another_length_than_the_first():
    traffic = Traffic("multi-turn", prompt_tokens=300, turns=3, turn_tokens=30)
    counts = [len(text.split()) for text in user_messages(traffic, WordLength(0.0, 3.0), 0)]
    assert counts == [100, 10, 10]


def test_a_shared_prefix_is_shared_and_the_rest_is_not(bench):
    options = ["--traffic", "shared-prefix", "--prefix-tokens", "45", "--prompt-tokens", "20", "--warmup", "0"]
    sleeper, _, report = bench(lambda number: Plan(), *options, "--requests", "4")
    prompts = [body["messages"][0]["content"].split() for body in sleeper.bodies[PROBES:]]
    assert report["prompt_tokens_mean"] == 65
    assert len({tuple(words[:20]) for words in prompts}) == 1
    assert len({words[20] for words in prompts}) == 4


def test_the_same_seed_says_the_same_words(bench):
    said = []
    for seed in ("1", "1", "2"):
        sleeper, *_ = bench(lambda number: Plan(), "--seed", seed, "--requests", "3", "--warmup", "0")
        said.append(sorted(body["messages"][0]["content"] for body in sleeper.bodies[PROBES:]))
    assert said[0] == said[1] != said[2]


def test_open_loop_does_not_wait_for_answers(bench):
    options = ["--rate", "20", "--requests", "12", "--warmup", "0"]
    sleeper, _, report = bench(lambda number: Plan(first=0.5 if number >= PROBES else 0), *options)
    arrivals = sleeper.arrivals[PROBES:]
    assert arrivals[-1] - arrivals[0] < 12 * 0.5 / 2  # one after the other, they would take 6 s
    assert len({round(later - earlier, 3) for earlier, later in itertools.pairwise(arrivals)}) > 3
    assert report["load"]["clients"] is None


def test_lateness_of_the_client_counts_against_nobody_silently():
    async def blocked():
        health = ClientHealth()
        health.start()
        for _ in range(5):
            await asyncio.sleep(0.01)
            time.sleep(0.1)  # what a client too slow for its load does
        return health.stop()

    report = asyncio.run(blocked())
    assert report["bottleneck"]
    assert report["loop_lag_max_ms"] >= 80


def test_goodput_counts_answers_that_keep_every_limit():
    def answer(ttft, itl):
        chunks = [ttft + itl * index for index in range(4)]
        return Timed(0.0, chunks=chunks, end=chunks[-1])

    answers = [answer(0.1, 0.01), answer(0.3, 0.01), answer(0.1, 0.05), answer(0.3, 0.05)]
    share = lambda **limits: summarise(answers, 0.0, Slo(**limits))["goodput"]["share"]  # noqa: E731
    assert share(ttft_ms=200) == 0.5
    assert share(itl_ms=20) == 0.5
    assert share(ttft_ms=200, itl_ms=20) == 0.25
    assert share(e2e_ms=140) == 0.25
    assert summarise(answers, 0.0, Slo())["goodput"] is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--clients", "0"], "at least 1"),
        (["--clients", "2", "--rate", "1"], "one of them"),
        (["--rate", "nan"], "--rate"),
        (["--requests", "0"], "--requests"),
        (["--prompt-tokens", "0"], "prompt_tokens"),
        (["--turns", "2"], "multi-turn"),
        (["--turn-tokens", "2"], "multi-turn"),
        (["--traffic", "multi-turn", "--turn-tokens", "-2"], "turn_tokens"),
        (["--prefix-tokens", "9"], "shared-prefix"),
        (["--timeout", "0"], "--timeout"),
        (["--extra", "[1]"], "JSON object"),
        (["--cliens", "2"], "--clients"),
        ([], "no server answers"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, options, sentence):
    assert main(["bench", "serve", "--base-url", "http://127.0.0.1:9", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert sentence in err


@pytest.mark.parametrize(("words", "sentence"), [([], "what to measure"), (["serv"], "did you mean 'serve'?")])
def test_an_unknown_measurement_is_refused(capsys, words, sentence):
    assert main(["bench", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_server_that_refuses_everything_is_a_fault_in_words(bench):
    _, code, err = bench(lambda number: Plan(status=401))
    assert code == 2
    assert "http_401: the server is full" in err


def test_fulmen_serve_is_measured_with_what_its_metrics_say(kit, nano_directory, capsys):
    options = ["--port", "0", "--no-guard", "--backend", "cpu", "--max-sequences", "4"]
    with kit.process("--threads", "1", "serve", "--model", str(nano_directory), *options) as (_, url, _):
        load = ["--clients", "4", "--requests", "8", "--prompt-tokens", "60", "--output-tokens", "24"]
        assert main(["bench", "serve", "--base-url", f"{url}/v1", "--json", *load]) == 0
        report = json.loads(capsys.readouterr().out)
        assert main(["bench", "serve", "--base-url", url, *load]) == 0
        table = capsys.readouterr().out
    # random weights may choose the end first: such an answer has no text to time
    assert set(report["errors"]) <= {"no_text"}
    assert report["completed"] + report["errors"].get("no_text", 0) == 8
    assert report["tokens_counted_by"] == "server"
    assert report["completed"] <= report["output_tokens"] <= report["completed"] * 24
    assert report["prompt_tokens_mean"] == pytest.approx(60, rel=0.15)
    assert 0 < report["fulmen"]["busy"] <= 1
    assert 1 <= report["fulmen"]["batch"] <= 4
    assert "output tokens/s (counted by server)" in table
    assert "model busy" in table
