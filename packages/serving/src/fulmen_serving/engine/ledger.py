"""What is live in the model process, and what to ask of the next one if it dies: every token that arrived is kept.

A request that was there when a process died has a strike, until it gets its next token. With two strikes it is
suspect, and suspects are tried in a fresh process: one at a time, alone, for one token. So a request that kills the
process fails by itself, and those that only stood beside it go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fulmen_serving.engine.core import TokenEvent
from fulmen_serving.engine.report import Ended, StepReport
from fulmen_serving.engine.sequence import GenerationRequest

_SUSPECT = 2  # strikes


@dataclass(slots=True)
class _Entry:
    request: GenerationRequest
    tokens: list[int] = field(default_factory=list)  # of the answer, as far as they arrived
    strikes: int = 0
    sent: bool = False  # the process that lives now has it
    tried: bool = False  # ... for one token
    aborted: bool = False  # the process was told; what remains is its word that it is gone

    @property
    def complete(self) -> bool:
        """Whether it has all the tokens it may have."""
        return len(self.request.generated) + len(self.tokens) >= self.request.params.max_tokens

    def ended(self) -> Ended:
        """What is known of it without the process."""
        return Ended(self.request.request_id, len(self.request.prompt_ids) if self.tokens else 0, len(self.tokens))

    def to_send(self) -> GenerationRequest:
        """The request as the next process goes on with it."""
        request, generated = self.request, (*self.request.generated, *self.tokens)
        if self.tried:
            request = replace(request, params=replace(request.params, max_tokens=len(generated) + 1))
        return replace(request, generated=generated)


class Ledger:
    """The live requests of one engine. Not thread-safe. After each change, `send` says what the process should get."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}  # in order of arrival

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def in_process(self) -> int:
        """Requests that the process has."""
        return sum(entry.sent for entry in self._entries.values())

    def add(self, request: GenerationRequest) -> None:
        """A request came."""
        self._entries[request.request_id] = _Entry(request)

    def abort(self, request_id: str) -> Ended | None:
        """A request is to end. Return its end if the process never had it; else tell the process, which will say."""
        entry = self._entries.get(request_id)
        if entry is None or entry.aborted:
            return None
        if entry.sent:
            entry.aborted = True
            return None
        del self._entries[request_id]
        return entry.ended()

    def take(self, report: StepReport) -> None:
        """Write down what the process says; `report` then says what the engine should hear."""
        passed = set()  # requests whose trial this report ends well
        for index, event in enumerate(report.events):
            entry = self._entries.get(event.request_id)
            if entry is None or event.token is None:
                continue
            entry.tokens.append(event.token)
            entry.strikes = 0
            if entry.tried and event.end == "length" and not entry.complete:
                report.events[index] = event._replace(end=None)
                passed.add(event.request_id)
        gone = []
        for ended in report.ended:
            entry = self._entries.get(ended.request_id)
            if entry is not None and ended.request_id in passed and not entry.aborted:
                entry.sent = entry.tried = False
            else:
                self._entries.pop(ended.request_id, None)
                gone.append(ended)
        report.ended = gone

    def crashed(self, reason: str) -> StepReport:
        """The process is gone. Return what the engine should hear; `send` says what the next process gets."""
        report = StepReport(lost=reason)
        alone = self.in_process == 1
        for name, entry in list(self._entries.items()):
            if not entry.sent:
                continue
            entry.strikes += 1
            if entry.aborted:
                report.ended.append(self._entries.pop(name).ended())
            elif entry.strikes >= _SUSPECT and alone:
                message = f"the model process died {entry.strikes} times while it computed this request, last: {reason}"
                report.events.append(TokenEvent(name, None, "error", message))
                report.ended.append(self._entries.pop(name).ended())
            else:
                report.requeued.append(name)
            entry.sent = entry.tried = False
        return report

    def send(self) -> list[GenerationRequest]:
        """Return what the process should have now and has not; from now on it has."""
        suspects = [entry for entry in self._entries.values() if entry.strikes >= _SUSPECT]
        chosen: Iterable[_Entry] = self._entries.values()
        if suspects:
            chosen = suspects[:1] if not self.in_process else ()
            for entry in chosen:
                entry.tried = True
        fresh = [entry for entry in chosen if not entry.sent]
        for entry in fresh:
            entry.sent = True
        return [entry.to_send() for entry in fresh]
