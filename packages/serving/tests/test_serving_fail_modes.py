"""Claims about every detector of the default policy: when it raises, hangs or takes its process with it, what the
policy promises happens, the response says so, and the audit log has it.

The faults are put into the real detectors, one at a time; everything else is as it is served.
"""

from __future__ import annotations

import json
import os
import textwrap
import threading
from pathlib import Path

import httpx
import pytest

from fulmen_core.registry import Discovery, Registry
from fulmen_safety.audit.chain import verify
from fulmen_safety.audit.store import open_store
from fulmen_safety.guard import GuardFailure, RaiseGuard
from fulmen_safety.policy import load_policy
from fulmen_serving.guarding.guard_process import GuardProcess

INFOS = {entry.name: Registry.discover().detector_info(entry.name) for entry in load_policy().detectors}
PHASES = {entry.name: entry.phases or INFOS[entry.name].phases for entry in load_policy().detectors}
PROMPTED, ANSWERING = ([name for name, phases in PHASES.items() if phase in phases] for phase in ("input", "output"))
FAILURE = load_policy().file.failure.en
DEADLINE = 250  # milliseconds, of the faulty detector alone
QUESTION = "what is the tallest tree"


class Faulty:
    """The registry, whose detector `name` scans by `fault`."""

    def __init__(self, name, fault):
        self._registry, self._name, self._fault = Registry.discover(), name, fault

    def detector_info(self, name):
        return self._registry.detector_info(name)

    def detector(self, name, settings):
        made = self._registry.detector(name, settings)
        if name == self._name:
            made.scan = self._fault
        return made


@pytest.fixture
def awake():
    """Lets what hangs go on, so that no thread outlives the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(params=["raises", "hangs"])
def fault(request, awake):
    def raises(text):
        raise RuntimeError("out of cheese")

    def hangs(text):
        awake.wait(60)
        return []

    return {"raises": raises, "hangs": hangs}[request.param]


def policy_file(folder: Path, name: str, **keys) -> Path:
    """The default policy with an audit log, in which detector `name` has a short deadline and other `keys`."""
    keys = {"deadline_ms": DEADLINE, "on_error": "closed", **keys}
    told = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    path = folder / "policy.toml"
    path.write_text(f'extends = "default"\naudit.path = "audit.jsonl"\n[[detectors]]\nname = "{name}"\n{told}')
    return path


def faulty_guard(folder, name, fault, **keys) -> RaiseGuard:
    return RaiseGuard(load_policy(policy_file(folder, name, **keys)), Faulty(name, fault))


def audited(folder):
    store = open_store("audit.jsonl", folder)
    assert verify(store).faults == ()
    return list(store.records())


def ask(kit, guard, **more):
    with kit.service(guard=guard) as service, kit.server(service) as url:
        asked = {"model": "parrot", "messages": [{"role": "user", "content": QUESTION}], **more}
        return httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60)


@pytest.mark.parametrize("name", PROMPTED)
def test_a_prompt_that_could_not_be_judged_is_blocked(kit, tmp_path, name, fault):
    answer = ask(kit, faulty_guard(tmp_path, name, fault, phases=["input"]))
    [choice] = answer.json()["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", FAILURE)
    assert choice["guard"] == {"category": "guard_failure", "degraded": [name]}
    assert answer.headers["X-Fulmen-Guard"] == f"degraded; detectors={name}"
    [record] = audited(tmp_path)
    assert (record["phase"], record["action"], record["category"]) == ("input", "block", "guard_failure")
    assert record["failed_closed"]
    assert repr(name) in record["failures"][0]


@pytest.mark.parametrize("name", PROMPTED)
def test_or_is_answered_without_it_where_the_policy_says_so(kit, tmp_path, name, fault):
    answer = ask(kit, faulty_guard(tmp_path, name, fault, phases=["input"], on_error="open"))
    [choice] = answer.json()["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", QUESTION)
    assert choice["guard"] == {"category": "", "degraded": [name]}
    assert answer.headers["X-Fulmen-Guard"] == f"degraded; detectors={name}"
    entered, _ = audited(tmp_path)
    assert (entered["action"], entered["failed_closed"], len(entered["failures"])) == ("allow", False, 1)


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_could_not_be_judged_ends(kit, tmp_path, name, fault, streamed):
    answer = ask(kit, faulty_guard(tmp_path, name, fault, phases=["output"]), stream=streamed)
    if streamed:
        chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        last = chunks[-1]["choices"][0]
    else:
        [last] = answer.json()["choices"]
        said = last["message"]["content"]
    assert (last["finish_reason"], said) == ("content_filter", FAILURE)
    assert last["guard"] == {"category": "guard_failure", "degraded": [name]}
    record = audited(tmp_path)[-1]
    assert (record["phase"], record["action"], record["category"]) == ("output", "replace", "guard_failure")
    assert record["failed_closed"]
    assert repr(name) in record["failures"][0]


@pytest.mark.parametrize("name", ANSWERING)
def test_or_goes_on_without_it_where_the_policy_says_so(kit, tmp_path, name, fault):
    answer = ask(kit, faulty_guard(tmp_path, name, fault, phases=["output"], on_error="open"))
    [choice] = answer.json()["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", QUESTION)
    assert choice["guard"]["degraded"] == [name]
    record = audited(tmp_path)[-1]
    assert (record["action"], record["failed_closed"], len(record["failures"])) == ("allow", False, 1)


@pytest.mark.parametrize("name", PHASES)
def test_documents_are_quarantined_and_rewards_refused(tmp_path, name, fault):
    guard = faulty_guard(tmp_path, name, fault)
    if "corpus" in PHASES[name]:
        verdict = guard.judge_document("a document")
        assert (verdict.action, verdict.text, verdict.degraded) == ("quarantine", "a document", (name,))
        assert audited(tmp_path)[-1]["failed_closed"]
    if "reward" in PHASES[name]:
        with pytest.raises(GuardFailure, match=name):
            guard.reward_penalty("a question", "an answer")


# -- killed ------------------------------------------------------------------------------------------------------------

DEADLY = """
    import importlib, os, signal
    from fulmen_core.hooks import hookimpl

    module, _, attribute = {load!r}.partition(":")
    place = importlib.import_module(module)
    make = getattr(place, attribute)

    def deadly(settings):
        made = make(settings)
        scan = made.scan
        def die(text):
            if "fatal" in text and os.getppid() == {parent}:
                os.kill(os.getpid(), signal.SIGKILL)
            return scan(text)
        made.scan = die
        return made

    setattr(place, attribute, deadly)

    @hookimpl
    def fulmen_raise_detectors():
        return []
"""


@pytest.mark.parametrize("name", PHASES)
def test_a_detector_that_takes_its_process_with_it_fails_closed_and_the_next_request_is_served(kit, tmp_path, name):
    plugin = tmp_path / "deadly.py"
    load = INFOS[name].load
    plugin.write_text(textwrap.dedent(DEADLY.format(load=load, parent=os.getpid())))
    phase = "output" if name in ANSWERING else "input"
    guard = GuardProcess(policy_file(tmp_path, name, phases=[phase], deadline_ms=20000), Discovery(files=(plugin,)))
    try:
        guard.start()
        with kit.service(guard=guard) as service, kit.server(service) as url:

            def told(text):
                asked = {"model": "parrot", "messages": [{"role": "user", "content": text}]}
                return httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60)

            lost = told("a fatal word")
            if phase == "input":
                assert (lost.status_code, lost.json()["error"]["code"]) == (500, "guard_failed")
            else:
                [choice] = lost.json()["choices"]
                assert choice["finish_reason"] == "content_filter"
                assert choice["guard"]["category"] == "guard_failure"
                assert "fatal" not in choice["message"]["content"]
            assert told("a harmless word").json()["choices"][0]["message"]["content"] == "a harmless word"
    finally:
        guard.close()
    losses = [record for record in audited(tmp_path) if record["phase"] == "loss"]
    assert len(losses) == guard.deaths > 0
    assert all("SIGKILL" in record["failures"][0] for record in losses)
