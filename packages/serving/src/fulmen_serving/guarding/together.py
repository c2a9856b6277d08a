"""The next pieces of several answers for a guard: at once if it takes them so, otherwise one after another."""

from __future__ import annotations

from collections.abc import Sequence

from fulmen_core.guard import FeedsTogether, Guard, OutputChunk, OutputStream


def feed_together(guard: Guard, pieces: Sequence[tuple[OutputStream, str]]) -> list[OutputChunk | Exception]:
    """Feed each of these streams of `guard`, no stream twice; return what each gives, or the exception that it raises.

    What a guard raises over all of them at once stands for each.
    """
    if len(pieces) > 1 and isinstance(guard, FeedsTogether):
        try:
            return guard.feed_together(pieces)
        except Exception as error:
            return [error] * len(pieces)
    return [fed(stream, text) for stream, text in pieces]


def fed(stream: OutputStream, text: str) -> OutputChunk | Exception:
    """Feed one stream."""
    try:
        return stream.feed(text)
    except Exception as error:
        return error
