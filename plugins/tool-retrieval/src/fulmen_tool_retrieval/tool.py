"""The tool `retrieval`: a model's query in, quoted passages out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fulmen_core.errors import UserError
from fulmen_core.recipes import invalid
from fulmen_core.tool import ToolContext, ToolError, ToolResult
from fulmen_tool_retrieval.passages import NOTE, quoted
from fulmen_tool_retrieval.remote_embedder import RemoteEmbedder, read_key
from fulmen_tool_retrieval.search import Index, Mode

logger = logging.getLogger(__name__)


class RetrievalSettings(BaseModel):
    """The operator's options of the tool.

    Attributes:
        index: the file that `fulmen retrieval index` made; a new one in its place is taken up at the next call.
        top_k: passages of a result, unless the model asks for another number.
        passage_characters: where a passage is cut.
        by: how it searches.
        embeddings, embeddings_model, embeddings_key_file: the server of embeddings, for an index made with one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: Path
    top_k: int = Field(5, ge=1, le=20)
    passage_characters: int = Field(1200, ge=100, le=20_000)
    by: Mode = "hybrid"
    embeddings: str = ""
    embeddings_model: str = ""
    embeddings_key_file: Path | None = None


def make(settings: Mapping[str, object]) -> RetrievalTool:
    """Make the tool and open its index.

    Raises:
        UserError: a setting, the index or the key file is at fault.
    """
    try:
        return RetrievalTool(RetrievalSettings.model_validate(settings))
    except ValidationError as error:
        raise invalid(error, RetrievalSettings, place="the options of the tool retrieval") from error


class RetrievalTool:
    """The search of one index (`fulmen_core.tool.Tool`). Safe to call from several threads."""

    def __init__(self, settings: RetrievalSettings) -> None:
        self._settings = settings
        self._remote = None
        if settings.embeddings:
            self._remote = RemoteEmbedder(
                settings.embeddings, settings.embeddings_model, read_key(settings.embeddings_key_file)
            )
        self._lock = threading.Lock()
        self._state = self._file_state()
        self._index = Index(settings.index, self._remote)

    def __call__(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Search for ``arguments["query"]``.

        Raises:
            ToolError: the index is gone or damaged, or the server of embeddings cannot be had in time.
        """
        top_k = int(arguments.get("top_k", self._settings.top_k))
        try:
            index = self._current()
            hits = index.search(arguments["query"], top_k, self._settings.by, context.remaining_seconds)
        except UserError as error:
            raise ToolError(error.what) from error  # the remedy is the operator's, not the model's
        if not hits:
            return ToolResult(("No passage of the documents fits the query.",))
        return ToolResult((NOTE, *(quoted(hit, self._settings.passage_characters) for hit in hits)))

    def _current(self) -> Index:
        """The index, opened again if another file took its place; while that one cannot be used, the old one stays."""
        with self._lock:
            state = self._file_state()
            if state not in (None, self._state):
                self._state = state
                try:
                    self._index = Index(self._settings.index, self._remote)  # searches under way keep the old one alive
                except UserError as error:
                    logger.warning("the index %s was replaced, and the old one stays: %s", self._settings.index, error)
            return self._index

    def _file_state(self) -> tuple[int, ...] | None:
        try:
            found = self._settings.index.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
