"""The detector ``semantic``: each window of a text is compared with the examples of each category."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_raise_semantic.embedders import Embedder, FunctionEmbedder, HashedEmbedder, ServerEmbedder
from fulmen_raise_semantic.examples import Examples, read_examples
from fulmen_raise_semantic.neighbours import Neighbours
from fulmen_raise_semantic.vector_cache import example_vectors
from fulmen_safety import Finding, UserError
from fulmen_safety.remote import Patience
from fulmen_safety.settings import Field, Table, read_settings
from fulmen_safety.taxonomy import taxonomy
from fulmen_safety.windows import windows

_WHERE = "the settings of the detector 'semantic'"


class Settings(Table):
    """The detector's settings in a policy. Files are looked for from the working directory."""

    examples: dict[str, str] = Field(min_length=1)  # category -> file
    ordinary: str  # file of texts that are of none of them
    embedder: str = "hashed"  # or "server", or "module:function"
    url: str = ""  # of the server, up to and with /v1
    model: str = ""
    key_file: str = ""
    seconds: float = Field(1.5, gt=0)  # for all windows of a text together
    retries: int = Field(1, ge=0, le=5)
    loading_seconds: float = Field(120.0, gt=0)  # for the vectors of all examples
    cache: str = ""  # folder to keep the examples' vectors in
    window: int = Field(800, ge=40)
    floor: float = Field(0.5, ge=0.0, le=1.0)  # lower scores are not reported


class SemanticDetector:
    """Compares texts with examples.

    The vectors of the examples are made when the first text comes, not when a policy is loaded: the server that gives
    them may be the one that loads the policy. Until they are there, every text is a failure of the detector.
    """

    name = "semantic"

    def __init__(self, settings: Settings, examples: Examples, embedder: Embedder, loader: Embedder) -> None:
        self._settings, self._examples, self._embedder, self._loader = settings, examples, embedder, loader
        self._lock = threading.Lock()
        self._neighbours: Neighbours | None = None
        if embedder.local:
            self._ready()

    def scan(self, text: str) -> list[Finding]:
        """See `fulmen_safety.detector.Detector.scan`: for each window, one finding of each category it is like.

        Raises:
            RemoteFailure: the server of embeddings could not be asked in time.
            ValueError: the embedder gives no vectors.
        """
        spans, likely = self._likely(text)
        return [
            Finding(self.name, category, round(float(score), 6), start, end, "alike")
            for category, scores in likely.items()
            for (start, end), score in zip(spans, scores, strict=True)
            if score >= self._settings.floor
        ]

    def scores(self, text: str) -> Mapping[str, float]:
        """See `fulmen_safety.detector.Scorer.scores`: of the window that is most like each category."""
        _, likely = self._likely(text)
        return {category: float(likely[category].max()) if likely else 0.0 for category in self._examples.by_category}

    def _likely(self, text: str) -> tuple[list[tuple[int, int]], Mapping[str, NDArray[np.float64]]]:
        """The windows of a text, and category -> the probability of each; nothing for a text of blanks."""
        spans = windows(text, self._settings.window, self._settings.window // 8)
        if not spans:
            return [], {}
        neighbours = self._ready()
        return spans, neighbours.probabilities(self._embedder.embed([text[start:end] for start, end in spans]))

    def _ready(self) -> Neighbours:
        with self._lock:
            if self._neighbours is None:
                vectors_ND = example_vectors(self._examples, self._loader, self._settings.cache)
                self._neighbours = Neighbours(self._examples, vectors_ND)
            return self._neighbours


def make(settings: Mapping[str, Any]) -> SemanticDetector:
    """Make the detector from its settings.

    Raises:
        UserError: an unknown key or category, a file that cannot be read or holds too little, no such embedder.
    """
    read = read_settings(Settings, settings, _WHERE)
    for category in read.examples:
        taxonomy().check(category, _WHERE)
    server = read.embedder == "server"
    if server and not (read.url and read.model):
        raise UserError("the embedder is a server without url and model", where=_WHERE, remedy="give both")
    if not server and (read.url or read.model or read.key_file):
        raise UserError(
            f"there is a server of embeddings, but the embedder is {read.embedder!r}",
            where=_WHERE,
            remedy='write embedder = "server"',
        )
    examples = read_examples(read.examples, read.ordinary)
    if server:
        made: list[Embedder] = [
            ServerEmbedder(read.url, read.model, read.key_file, Patience(seconds, read.retries))
            for seconds in (read.seconds, read.loading_seconds)
        ]
        return SemanticDetector(read, examples, *made)
    if read.embedder == "hashed":
        hashed = HashedEmbedder(examples.texts())
        return SemanticDetector(read, examples, hashed, hashed)
    if ":" not in read.embedder:
        raise UserError(
            f"there is no embedder {read.embedder!r}",
            where=_WHERE,
            remedy='write "hashed", "server" or "module:function"',
        )
    function = FunctionEmbedder(read.embedder, _WHERE)
    return SemanticDetector(read, examples, function, function)
