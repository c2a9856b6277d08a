"""Claims about a model in a process of its own: real processes, killed, hung and drained in the middle of answers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from fulmen_core.errors import UserError
from fulmen_core.generation import generate
from fulmen_core.registry import Discovery
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
from fulmen_core.tokenizer import StreamDecoder
from fulmen_serving.engine.admission import AdmissionLimits
from fulmen_serving.engine.answer_stream import AnswerStream
from fulmen_serving.engine.answer_text import AnswerText
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure, Engine, EngineStopped, TextDelta
from fulmen_serving.engine.model_plan import ModelPlan
from fulmen_serving.engine.model_process import ModelProcess
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.engine.stop_strings import StopStrings
from fulmen_serving.metrics import ServingMetrics
from fulmen_serving.processes.restart_policy import RestartPolicy

PLUGIN = Path(__file__).with_name("brittle_backend.py")
POISON = 510  # the token that kills its process
LIMITS = EngineLimits(4, 256, 32)


@pytest.fixture
def model(tmp_path):
    """A model directory of the brittle backend, slow enough to be killed in the middle of an answer."""
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 256, "vocab_size": 512}))
    (tmp_path / "fulmen_artefact.json").write_text('{"format": "brittle"}')
    (tmp_path / "slow").touch()
    return tmp_path


def plan_of(model):
    return ModelPlan(model, "brittle", LIMITS, plugins=Discovery(files=(PLUGIN,)))


@contextlib.contextmanager
def running(model, *, waiting=32, **options):
    """An engine whose model runs in a process; whatever happens, it leaves no process."""
    host = ModelProcess(plan_of(model), **options)
    try:
        host.wait_ready()
        engine = Engine(host, AdmissionLimits(waiting, 4096), ServingMetrics())
        engine.start()
        pid = host.pid
        try:
            yield engine
        finally:
            engine.close()
    finally:
        host.close()
    assert host.pid is None
    assert not alive(pid)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


def answer(kit, name, prompt, *, seed=0, stops=(), **params):
    asked = SamplingParams(**{"max_tokens": 60} | params)
    request = GenerationRequest(name, prompt, asked, (seed, 0), frozenset())
    return request, AnswerText(StreamDecoder(kit.tokenizer), StopStrings(stops), None)


def undisturbed(kit, prompt, *, seed=0, **params):
    """The text of the same request in this process, alone."""
    spec = importlib.util.spec_from_file_location("brittle_backend", PLUGIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runner = module.BrittleRunner(Path("/nowhere"), LIMITS)
    [ids] = generate(runner, [prompt], SamplingParams(**{"max_tokens": 60, "seed": seed} | params))
    return kit.tokenizer.decode(ids), len(ids)


async def read(stream, after=None):
    """Read a stream to its end; call `after` once some text has come."""
    text, end = "", None
    async for _, event in stream:
        if isinstance(event, TextDelta):
            text += event.text
            if after is not None and len(text) > 20:
                after()
                after = None
        else:
            end = event
    return text, end


def prompt_of(length=12):
    return [random.randrange(100, 500) for _ in range(length)]


def test_answers_go_on_when_their_process_is_killed_and_equal_the_undisturbed_ones(kit, model):
    asked = {
        "greedy": {"prompt": prompt_of(), "temperature": 0},
        "seeded": {"prompt": prompt_of(), "seed": 7},
        "cut": {"prompt": prompt_of(40), "seed": 8, "top_p": 0.9},
        "penalised": {"prompt": prompt_of(), "seed": 9, "presence_penalty": 1.5, "frequency_penalty": 0.5},
        "queued": {"prompt": prompt_of(), "seed": 10},
        "queued too": {"prompt": prompt_of(), "temperature": 0},
    }

    async def scenario(engine):
        kills = []

        def kill():
            kills.append(engine.host.pid)
            os.kill(engine.host.pid, signal.SIGKILL)

        streams = {name: AnswerStream(engine, [answer(kit, name, **how)]) for name, how in asked.items()}
        read_all = [read(stream, kill if name == "greedy" else None) for name, stream in streams.items()]
        results = dict(zip(streams, await asyncio.gather(*read_all), strict=True))
        assert engine.host.pid not in kills
        return results

    with running(model) as engine:
        results = asyncio.run(scenario(engine))
        kit.wait_until(lambda: engine.admission.live == 0, "all requests ended")
        assert engine.condition.restarts == 1
        assert b"fulmen_model_restarts_total 1.0" in engine.metrics.render()
    for name, how in asked.items():
        text, tokens = undisturbed(kit, **how)
        assert results[name][0] == text, name
        assert isinstance(results[name][1], AnswerEnd), results[name][1]
        assert results[name][1].completion_tokens == tokens


def test_a_step_that_hangs_is_noticed_and_its_answers_go_on(kit, model):
    prompt = prompt_of()

    async def scenario(engine):
        stream = AnswerStream(engine, [answer(kit, "a", prompt, seed=3)])
        return await read(stream, (model / "hangs").touch)

    with running(model, step_patience=0.5) as engine:
        text, end = asyncio.run(scenario(engine))
        assert engine.condition.restarts == 1
    assert isinstance(end, AnswerEnd)
    assert text == undisturbed(kit, prompt, seed=3)[0]


def test_a_request_that_kills_every_process_fails_alone(kit, model):
    prompts = {f"good {index}": prompt_of() for index in range(6)}

    async def scenario(engine):
        streams = [AnswerStream(engine, [answer(kit, name, prompt, seed=1)]) for name, prompt in prompts.items()]
        bad = AnswerStream(engine, [answer(kit, "bad", [100, POISON, 101])])
        return await asyncio.gather(*map(read, streams), read(bad))

    with running(model, policy=RestartPolicy(delays=(0.0,))) as engine:
        *good, (_, failure) = asyncio.run(scenario(engine))
        assert engine.condition.state == "running"
        kit.wait_until(lambda: engine.admission.live == 0, "no slot is lost")
    assert isinstance(failure, AnswerFailure)
    assert "the model process died" in failure.message
    assert "while it computed this request, last: it was killed by SIGKILL" in failure.message
    for (text, end), prompt in zip(good, prompts.values(), strict=True):
        assert isinstance(end, AnswerEnd), end
        assert text == undisturbed(kit, prompt, seed=1)[0]


def test_too_many_deaths_are_a_fault_that_says_why(kit, model):
    with running(model, policy=RestartPolicy(crashes=3, delays=(0.0,))) as engine:
        events = []
        engine.submit([answer(kit, "a", prompt_of(), max_tokens=200)], lambda _, event: events.append(event))
        for restarts in range(3):
            heard = len(events)
            kit.wait_until(lambda n=heard: len(events) > n, "it goes on, so that it is not to blame")
            os.kill(engine.host.pid, signal.SIGKILL)
            kit.wait_until(lambda n=restarts: engine.condition.restarts > n, "its death is noticed")
        kit.wait_until(lambda: bool(engine.fault), "it gives up")
        assert engine.fault == "the model process died 3 times within 300 s: it was killed by SIGKILL"
        kit.wait_until(lambda: not isinstance(events[-1], TextDelta), "it is told")
        assert events[-1] == AnswerFailure(engine.fault)
        with pytest.raises(EngineStopped, match="died 3 times"):
            engine.submit([answer(kit, "b", prompt_of())], lambda *_: None)


def test_an_abort_frees_its_slot_also_while_there_is_no_process(kit, model):
    with running(model, policy=RestartPolicy(delays=(0.4,))) as engine:
        tallies = []
        for name in ("a", "b"):
            engine.submit(
                [answer(kit, name, prompt_of(), max_tokens=200)], lambda *_: None, lambda *n: tallies.append(n)
            )
        kit.wait_until(lambda: engine.admission.queued_requests == 0, "they run")
        engine.abort("a")
        kit.wait_until(lambda: engine.admission.live == 1, "its end is reported")
        os.kill(engine.host.pid, signal.SIGKILL)
        kit.wait_until(lambda: engine.condition.state == "restarting", "its death is noticed")
        assert "SIGKILL" in engine.condition.reason
        engine.abort("b")
        assert engine.admission.live == 0
    assert len(tallies) == 2
    assert all(prompt_tokens == 12 for prompt_tokens, _ in tallies)


def test_closing_ends_the_process_in_the_middle_of_an_answer(kit, model):
    ended = threading.Event()
    events = []

    def sink(_, event):
        events.append(event)
        if not isinstance(event, TextDelta):
            ended.set()

    with running(model) as engine:
        engine.submit([answer(kit, "a", prompt_of(), max_tokens=200)], sink)
        kit.wait_until(lambda: bool(events), "it runs")
        engine.close()
        assert ended.wait(5)
    assert events[-1] == AnswerFailure("the server is stopping")


def test_a_model_that_cannot_be_loaded_is_said_as_in_this_process_and_tried_once(kit, model, caplog):
    (model / "refuses").touch()
    host = ModelProcess(plan_of(model))
    with pytest.raises(UserError, match="the weights are gone in "):
        host.wait_ready()
    kit.wait_until(lambda: host.condition.state == "stopped", "nothing is started again")
    assert host.condition.restarts == 0
    assert caplog.records == []
    host.close()
    assert host.pid is None


def test_signals_to_the_whole_terminal_do_not_reach_the_model(kit, model):
    with running(model) as engine:
        pid = engine.host.pid
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        prompt = prompt_of()

        async def scenario():
            return await read(AnswerStream(engine, [answer(kit, "a", prompt, seed=5)]))

        assert asyncio.run(scenario())[0] == undisturbed(kit, prompt, seed=5)[0]
        assert engine.host.pid == pid


def test_a_parent_that_is_killed_leaves_no_child(kit, model):
    (model / "hangs").touch()  # it would not notice that its pipe is closed
    program = f"""
        from pathlib import Path
        from fulmen_core.registry import Discovery
        from fulmen_core.runner import EngineLimits
        from fulmen_core.sampling import SamplingParams
        from fulmen_serving.engine.model_plan import ModelPlan
        from fulmen_serving.engine.model_process import ModelProcess
        from fulmen_serving.engine.sequence import GenerationRequest

        plugins = Discovery(files=(Path({str(PLUGIN)!r}),))
        host = ModelProcess(ModelPlan(Path({str(model)!r}), "brittle", EngineLimits(2, 256, 32), plugins=plugins))
        host.wait_ready()
        host.start(print, print)
        host.add(GenerationRequest("a", [1, 2], SamplingParams(), (0,), frozenset()))
        print(host.pid, flush=True)
        input()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        kit.wait_until(lambda: not (model / "hangs").exists(), "it hangs")
        assert alive(child)
        parent.kill()
    kit.wait_until(lambda: not alive(child), "the child is gone")


def test_memory_threads_and_files_stay_flat_over_many_deaths(kit, model):
    (model / "slow").unlink()
    generous = RestartPolicy(crashes=1000, delays=(0.0,))

    def held():
        return threading.active_count(), sum(1 for _ in Path("/proc/self/fd").iterdir())

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def one(engine, index):
        stream = AnswerStream(engine, [answer(kit, f"{index}", prompt_of(), max_tokens=30)])
        return await read(stream, lambda: os.kill(engine.host.pid, signal.SIGKILL))

    with running(model, policy=generous) as engine:
        before = held()
        for index in range(8):
            if index == 3:
                warm = resident()
            _, end = asyncio.run(one(engine, index))
            assert isinstance(end, AnswerEnd)
            kit.wait_until(lambda: engine.condition.state == "running", "it runs again")
        kit.wait_until(lambda: held() == before, f"as many threads and files as before: {before}, now {held()}")
        assert resident() - warm < 4 << 20
        assert not engine._jobs
        assert not engine._leaving
        assert len(engine.host._ledger) == 0
