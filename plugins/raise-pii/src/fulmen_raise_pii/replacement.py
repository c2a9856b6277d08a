"""What stands in for what was found: its label, a mask, or a surrogate. The same for all detectors of this plugin."""

from __future__ import annotations

import secrets
from typing import Literal

from fulmen_raise_pii.surrogate import surrogate
from fulmen_safety.settings import Field, Table


class ReplacementSettings(Table):
    """How to replace.

    Args:
        replacement: "label" puts ``[EMAIL]`` in place of a finding, "mask" keeps its form and last characters,
            "surrogate" puts another value of the same form there, the same for the same value.
        surrogate_key: decides which; keep it secret. Empty: a new one for each detector that is made.
    """

    replacement: Literal["label", "mask", "surrogate"] = "label"
    surrogate_key: str = Field("", repr=False)


class Replacement:
    """Makes replacements as settings say."""

    def __init__(self, settings: ReplacementSettings) -> None:
        self._kind = settings.replacement
        self._key = settings.surrogate_key.encode() or secrets.token_bytes(32)

    def __call__(self, found: str, label: str) -> str:
        """Return what stands in for `found`."""
        if self._kind == "surrogate":
            return surrogate(found, label, self._key)
        return mask(found) if self._kind == "mask" else f"[{label.upper()}]"


def mask(found: str) -> str:
    """Star out what identifies: the name of an e-mail address, of a number all but its last two to four characters."""
    _, at, domain = found.partition("@")
    if at and domain:
        return f"***@{domain}"
    shown = 4 if sum(char.isalnum() for char in found) >= 15 else 2
    if sum(char.isalpha() for char in found) > sum(char.isdigit() for char in found):
        shown = 0  # the last letters of a name say too much
    masked = []
    for char in reversed(found):
        masked.append(char if not char.isalnum() or shown > 0 else "*")
        shown -= char.isalnum()
    return "".join(reversed(masked))
