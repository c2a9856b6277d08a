"""What the server asks of its guard's process, and what that answers: one reply to each request, in order.

Pickled, over socket pairs without a name, between a process and the child that it started from the same program.
Tuples, because a step is a message each way, and dataclasses take several times as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fulmen_core.registry import Discovery


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """A guard to be loaded: its policy (None: its own default), and how the registry was discovered."""

    policy: Path | None
    plugins: Discovery
    log_level: int


class Call(NamedTuple):
    """Call a method of the guard."""

    method: str
    arguments: tuple[Any, ...] = ()


class Lost(NamedTuple):
    """Why processes before this one died: what they were asked was judged by the caller's rules, or by the next."""

    reasons: tuple[str, ...]


class Open(NamedTuple):
    """Open a guarded answer, with what had been fed to the process before; the reply has the fields of its chunk."""

    stream: int
    messages: Sequence[Mapping[str, str]]
    earlier: str


class Feed(NamedTuple):
    """Feed a stream, or finish it if there is no text. `forgotten` are streams that nobody reads any more."""

    stream: int
    text: str | None
    forgotten: tuple[int, ...] = ()


class FeedTogether(NamedTuple):
    """Feed several streams, no stream twice: one step of the engine. The reply has a chunk or an error for each."""

    pieces: tuple[tuple[int, str], ...]
    forgotten: tuple[int, ...] = ()


class Reply(NamedTuple):
    """What a request returned, or why it failed."""

    value: Any = None
    error: Exception | None = None
