"""The served model, as a user meets it: `fulmen serve` in a process of its own, spoken to over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fulmen_core.errors import UserError


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer: its text, why it ended, and in how many pieces it came."""

    text: str
    finish_reason: str
    chunks: int


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and the model it offers."""

    url: str
    model: str

    def ask(self, prompt: str, *, max_tokens: int = 48) -> Answer:
        """Send one user turn at temperature 0 and read the stream to its end."""
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": True,
        }
        pieces: list[str] = []
        finish = ""
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=request, timeout=120) as response:
            if response.status_code != 200:
                response.read()
                raise UserError(f"the server answered {response.status_code}: {response.text}", where=self.url)
            for event in _events(response.read()):
                for choice in event["choices"]:
                    if content := choice["delta"].get("content"):
                        pieces.append(content)
                    finish = choice["finish_reason"] or finish
        return Answer("".join(pieces), finish, len(pieces))


def _events(stream: bytes) -> Iterator[dict[str, Any]]:
    for line in stream.split(b"\n"):  # not `iter_lines`, which also ends lines at characters within a text
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            yield json.loads(line.removeprefix(b"data: "))


@contextmanager
def serving(model: Path, *arguments: str, log: Path) -> Iterator[Server]:
    """Run `fulmen serve` on a free port until the block ends; everything it says goes to `log`.

    Raises:
        UserError: the server ended before it listened; the sentence holds its last line.
    """
    command = [sys.executable, "-m", "fulmen_core", "serve", "--model", str(model), "--port", "0", *arguments]
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        url, last = "", ""
        for line in process.stderr:
            sink.write(line)
            last = line.strip() or last
            if "http://" in line:
                url = "http://" + line.split("http://", 1)[1].split()[0].rstrip("/.")
                break
        drain = threading.Thread(target=lambda: sink.writelines(process.stderr or ()), daemon=True)
        drain.start()
        try:
            if not url:
                raise UserError("the server did not start", where=str(model), remedy=last or f"see {log}")
            served = httpx.get(f"{url}/v1/models", timeout=30).json()["data"][0]["id"]
            yield Server(url, served)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            drain.join(timeout=5)
