"""Claims about what is kept of requests while model processes come and go: a random machine of processes and deaths."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fulmen_core.sampling import SamplingParams
from fulmen_serving.engine.core import TokenEvent
from fulmen_serving.engine.ledger import Ledger
from fulmen_serving.engine.report import Ended, StepReport
from fulmen_serving.engine.sequence import GenerationRequest
from fulmen_serving.processes.restart_policy import RestartPolicy


class Process:
    """A model process in words: each request's next token is the number of tokens before it."""

    def __init__(self, slots):
        self.slots, self.requests = slots, {}

    def give(self, requests):
        for request in requests:
            assert request.request_id not in self.requests, "it was sent twice"
            assert list(request.generated) == list(range(len(request.generated))), "a token is lost or invented"
            self.requests[request.request_id] = [request, len(request.generated)]

    def abort(self, name):
        held = self.requests.pop(name, None)
        return StepReport() if held is None else StepReport(ended=[Ended(name, 1, held[1])])

    def step(self, poison):
        """One token for each of the first requests, or death."""
        report = StepReport(cycle_seconds=1)
        running = list(self.requests)[: self.slots]
        if poison & set(running):
            return None
        for name in running:
            request, count = self.requests[name]
            last = count + 1 >= request.params.max_tokens
            report.events.append(TokenEvent(name, count, "length" if last else None))
            self.requests[name][1] += 1
            if last:
                report.ended.append(Ended(name, 1, count + 1))
                del self.requests[name]
        return report


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 3))
def test_whatever_dies_every_request_gets_its_tokens_once_and_only_the_poisoned_fail(seed, slots, poisoned):
    dice = random.Random(seed)
    ledger, process = Ledger(), Process(slots)
    lengths = {f"r{index}": dice.randint(1, 9) for index in range(dice.randint(1, 10))}
    poison = set(dice.sample(sorted(lengths), min(poisoned, len(lengths))))
    to_come, aborted = sorted(lengths), set()
    tokens = {name: [] for name in lengths}
    ended, failed = [], []

    def hear(report):
        for event in report.events:
            if event.token is not None:
                tokens[event.request_id].append(event.token)
            else:
                failed.append(event.request_id)
            if event.end:
                assert event.request_id not in aborted
        ended.extend(one.request_id for one in report.ended)

    for _ in range(2000):
        if not to_come and not len(ledger):
            break
        move = dice.random()
        if to_come and move < 0.3:
            name = to_come.pop()
            ledger.add(GenerationRequest(name, [1], SamplingParams(max_tokens=lengths[name]), (0,), frozenset()))
        elif move < 0.35 and (live := sorted(set(lengths) - set(to_come) - set(ended) - aborted)):
            name = dice.choice(live)
            aborted.add(name)
            if (end := ledger.abort(name)) is not None:
                hear(StepReport(ended=[end]))
            else:
                report = process.abort(name)
                ledger.take(report)
                hear(report)
        elif process.requests:
            report = process.step(poison)
            if report is None:
                hear(ledger.crashed("it died"))
                process = Process(slots)
            else:
                ledger.take(report)
                hear(report)
        process.give(ledger.send())
    assert len(ledger) == 0
    assert sorted(ended) == sorted(lengths), "each ends once"
    assert set(failed) <= poison
    assert poison <= set(failed) | aborted
    for name, length in lengths.items():
        if name not in failed and name not in aborted:
            assert tokens[name] == list(range(length))


def test_a_request_is_not_blamed_for_deaths_between_which_it_went_on():
    ledger = Ledger()
    ledger.add(GenerationRequest("a", [1], SamplingParams(max_tokens=50), (0,), frozenset()))
    for token in range(10):
        [request] = ledger.send()
        assert request.generated == tuple(range(token))
        ledger.take(StepReport(events=[TokenEvent("a", token)]))
        assert ledger.crashed("it died").requeued == ["a"]


def test_restarts_come_later_and_later_and_then_no_more():
    now = [0.0]
    policy = RestartPolicy(crashes=4, window=10, delays=(0, 1), clock=lambda: now[0])
    assert [policy.crashed(), policy.crashed(), policy.crashed()] == [0, 1, 1]
    now[0] = 11
    assert policy.crashed() == 0, "what is older than the window is forgotten"
    assert [policy.crashed(), policy.crashed(), policy.crashed()] == [1, 1, None]
