"""The detector ``probe``: each window of a text is read by the model, and the head judges what it then thinks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_raise_probe.head import Head
from fulmen_raise_probe.states import ModelStates, ServerStates, States, TooLong
from fulmen_safety import Finding, UserError
from fulmen_safety.remote import JsonEndpoint, Patience, RemoteEmbeddings, read_key
from fulmen_safety.settings import Field, Table, read_settings
from fulmen_safety.windows import windows

_WHERE = "the settings of the detector 'probe'"
#: Characters of a window that every model can read.
_SMALLEST = 16


class Settings(Table):
    """The detector's settings in a policy."""

    probe: str  # folder that `fulmen raise probe train` wrote
    model: str  # the model directory; with `url` the model's name on that server
    url: str = ""  # of the server, up to and with /v1
    key_file: str = ""
    seconds: float = Field(1.5, gt=0)  # for all windows of a text together
    retries: int = Field(1, ge=0, le=5)
    window: int = Field(1500, ge=40)  # characters
    floor: float = Field(0.5, ge=0.0, le=1.0)  # lower scores are not reported


class ProbeDetector:
    """Judges by what a model thinks of a text."""

    name = "probe"

    def __init__(self, head: Head, states: States, settings: Settings) -> None:
        self._head, self._states, self._settings = head, states, settings

    def scan(self, text: str) -> list[Finding]:
        """See `fulmen_safety.detector.Detector.scan`: for each window, one finding of each category.

        Raises:
            RemoteFailure: the server could not be asked in time.
        """
        spans, likely_NC = self._likely(text)
        return [
            Finding(self.name, category, round(float(likely_NC[row, column]), 4), start, end, "probed")
            for row, (start, end) in enumerate(spans)
            for column, category in enumerate(self._head.categories)
            if likely_NC[row, column] >= self._settings.floor
        ]

    def scores(self, text: str) -> Mapping[str, float]:
        """See `fulmen_safety.detector.Scorer.scores`: of the window that is most of each category."""
        _, likely_NC = self._likely(text)
        return dict(zip(self._head.categories, likely_NC.max(axis=0, initial=0.0).tolist(), strict=True))

    def _likely(self, text: str) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
        size = self._settings.window
        while True:
            spans = windows(text, size, size // 8)
            if not spans:
                return [], np.zeros((0, len(self._head.categories)))
            try:
                states_ND = self._states.vectors([text[start:end] for start, end in spans])
            except TooLong:
                if size <= _SMALLEST:
                    raise
                size //= 2  # the text has more tokens a character than the window was chosen for
                continue
            return spans, self._head.probabilities(states_ND)


def make(settings: Mapping[str, Any]) -> ProbeDetector:
    """Make the detector from its settings, and load the model unless a server has it.

    Raises:
        UserError: an unknown key, no probe, or a model that the probe was not trained on.
    """
    read = read_settings(Settings, settings, _WHERE)
    head = Head.load(Path(read.probe))
    if read.url:
        if (head.layer, head.pool) != (0, "last"):
            raise UserError(
                f"the probe reads layer {head.layer} by its {head.pool}; a server gives the last token's final state",
                where=_WHERE,
                remedy="train it with --layer 0 --pool last, or give the model directory",
            )
        embeddings = RemoteEmbeddings(JsonEndpoint(read.url, read_key(read.key_file)), read.model)
        return ProbeDetector(head, ServerStates(embeddings, Patience(read.seconds, read.retries)), read)
    states = ModelStates(Path(read.model), head.layer, head.pool)
    if states.fingerprint != head.model:
        raise UserError(
            f"the probe was trained on another model than {read.model}",
            where=_WHERE,
            remedy="train it again with `fulmen raise probe train`: what a state means is each model's own",
        )
    return ProbeDetector(head, states, read)
