"""Detectors that ask a server: one JSON call under a deadline, tried again a bounded number of times.

Whatever goes wrong raises, for a detector that could not ask has failed and its policy's ``on_error`` decides. The key
is sent as a bearer token and stands in no message. Needs the extra ``remote`` (httpx).
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from fulmen_core.errors import UserError

#: No answer that a detector asks for is longer.
MAX_ANSWER_BYTES = 64 << 20

#: Answers after which the same call may succeed.
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_PAUSE = 0.05


class RemoteFailure(Exception):
    """The server could not be asked in time, refused, or answered with something else than was asked for."""


def read_key(file: str) -> str:
    """The key in the first line of `file`; empty for no file. In a file it stands in no policy and no list of
    processes.

    Raises:
        UserError: the file cannot be read.
    """
    if not file:
        return ""
    try:
        return Path(file).read_text("utf-8").strip().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the key file {file} cannot be read", remedy=str(error)) from error


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait: `seconds` for one call, its retries included, and how many `retries`."""

    seconds: float
    retries: int = 1


class JsonEndpoint:
    """An HTTP API that takes JSON and gives JSON. Safe to use from several threads, and after a fork.

    Args:
        base_url: up to and with ``/v1``, e.g. ``http://127.0.0.1:8000/v1``.
        key: sent as a bearer token; empty sends none.

    Raises:
        UserError: `base_url` is no URL of a server, or holds a user name.
    """

    def __init__(self, base_url: str, key: str = "") -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{base_url!r} is no URL of a server", remedy="write e.g. http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise UserError(
                f"the URL of {parts.hostname} holds a user name or a password",
                remedy="name a file with the key instead",
            )
        self.url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._lock = threading.Lock()
        self._process = 0
        self._client: httpx.Client | None = None

    def post(self, path: str, body: Mapping[str, Any], patience: Patience) -> Any:
        """Send `body` to ``base_url/path`` and return the JSON that is answered with 200.

        Raises:
            RemoteFailure: none came within ``patience.seconds``, whatever was tried again meanwhile.
        """
        until = time.monotonic() + patience.seconds
        pause = _FIRST_PAUSE
        for attempt in range(patience.retries + 1):
            try:
                return self._post(path, body, until)
            except _Passing as error:
                if attempt == patience.retries or time.monotonic() + pause >= until:
                    raise RemoteFailure(str(error)) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError  # the last attempt returns or raises

    def _post(self, path: str, body: Mapping[str, Any], until: float) -> Any:
        left = until - time.monotonic()
        if left <= 0:
            raise RemoteFailure(f"{self.url} did not answer in time")
        data = bytearray()
        try:
            with self._open().stream("POST", f"{self.url}/{path}", content=_encoded(body), timeout=left) as response:
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > MAX_ANSWER_BYTES:
                        raise RemoteFailure(f"{self.url} answered with more than {MAX_ANSWER_BYTES >> 20} MiB")
                    if time.monotonic() > until:
                        raise RemoteFailure(f"{self.url} did not answer in time")
        except httpx.TimeoutException as error:
            raise RemoteFailure(f"{self.url} did not answer in time") from error
        except httpx.HTTPError as error:
            raise _Passing(f"{self.url} cannot be reached: {error or type(error).__name__}") from error
        if response.status_code != 200:
            said = (
                f"{self.url} answered {response.status_code}: {' '.join(data[:300].decode('utf-8', 'replace').split())}"
            )
            raise (_Passing if response.status_code in _BUSY else RemoteFailure)(said)
        try:
            return json.loads(data)
        except ValueError as error:
            raise RemoteFailure(f"{self.url} answered with something else than JSON") from error

    def _open(self) -> httpx.Client:
        """The client of this process: connections must not be shared with a forked one."""
        with self._lock:
            if self._client is None or self._process != os.getpid():
                headers = {**self._headers, "Content-Type": "application/json"}
                # no proxy of the environment: the text to judge goes where the policy says
                self._client = httpx.Client(headers=headers, follow_redirects=False, trust_env=False)
                self._process = os.getpid()
            return self._client


class RemoteEmbeddings:
    """``POST /v1/embeddings`` of an OpenAI-compatible server, Fulmen's own among them.

    Source: https://platform.openai.com/docs/api-reference/embeddings/create.
    """

    def __init__(self, endpoint: JsonEndpoint, model: str, *, batch: int = 64) -> None:
        self._endpoint, self.model, self._batch = endpoint, model, batch

    def __call__(self, texts: Sequence[str], patience: Patience) -> list[list[float]]:
        """Return a vector for each of `texts`, in their order, all of one length; `patience` is for all together.

        Raises:
            RemoteFailure: see `JsonEndpoint.post`; or what came are not so many vectors of finite numbers.
        """
        until = time.monotonic() + patience.seconds
        vectors: list[list[float]] = []
        for first in range(0, len(texts), self._batch):
            part = list(texts[first : first + self._batch])
            body = {"model": self.model, "input": part, "encoding_format": "float"}
            left = Patience(until - time.monotonic(), patience.retries)
            vectors += self._read(self._endpoint.post("embeddings", body, left), len(part))
        if len({len(vector) for vector in vectors}) > 1:
            raise RemoteFailure(f"{self._endpoint.url} gave vectors of several lengths")
        return vectors

    def _read(self, answer: Any, count: int) -> list[list[float]]:
        try:
            rows = sorted(answer["data"], key=lambda row: int(row["index"]))
            vectors = [[float(value) for value in row["embedding"]] for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise RemoteFailure(f"{self._endpoint.url} answered with something else than embeddings") from error
        if len(vectors) != count or not all(vector and all(map(math.isfinite, vector)) for vector in vectors):
            raise RemoteFailure(f"{self._endpoint.url} gave {len(vectors)} vectors for {count} texts, or broken ones")
        return vectors


class _Passing(RemoteFailure):
    """A failure that may pass."""


def _encoded(body: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8; half a surrogate pair, which no server would read, becomes a question mark."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
