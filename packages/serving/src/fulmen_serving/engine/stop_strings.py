"""Stop strings over a stream of text: what may be the beginning of one is held back until it is decided."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Cuts one answer at the first stop string, which is not delivered.

    The first is the one that is complete first, the longest of those that are complete at once. That rule does not
    depend on how the text is cut into pieces, so that a streamed answer equals an unstreamed one.

    Attributes:
        found: the stop string that ended the answer; None while none has.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> tuple[str, bool]:
        """Take the next piece; return what can be delivered, and whether a stop string ended the answer."""
        self._held += text
        matches = [(start + len(stop), start) for stop in self._stops if (start := self._held.find(stop)) >= 0]
        if matches:
            end, start = min(matches)
            self.found = self._held[start:end]
            delivered, self._held = self._held[:start], ""
            return delivered, True
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        delivered, self._held = self._held[:cut], self._held[cut:]
        return delivered, False

    def finish(self) -> str:
        """The answer ended otherwise: return what was held back."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
