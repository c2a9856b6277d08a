"""A real server that speaks the protocol of chat completions; what it says is up to the test."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Answer = Callable[[str], str]


class JudgeServer:
    """``POST /v1/chat/completions``.

    Attributes:
        answer: what the judge says to the text of the last message.
        likely: what might have stood in place of each token; empty: no log probabilities are told.
        statuses: statuses to refuse with before answering, in order.
        pause: seconds to wait before answering, and `drip` seconds after every byte.
    """

    def __init__(self) -> None:
        self.answer: Answer = lambda text: "unsafe\nS1" if "attack" in text else "safe"
        self.raw: str | None = None
        self.likely: list[tuple[str, Mapping[str, float]]] = []
        self.finish = "stop"
        self.statuses: list[int] = []
        self.pause = self.drip = 0.0
        self.calls: list[dict[str, Any]] = []
        self.keys: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two writes

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.calls.append(body | {"path": self.path})
                outer.keys.append(self.headers.get("Authorization", ""))
                time.sleep(outer.pause)
                status = outer.statuses.pop(0) if outer.statuses else 200
                data = (outer.raw if outer.raw is not None else json.dumps(outer.completion(body))).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                try:
                    for byte in data if outer.drip else (data,):
                        self.wfile.write(bytes([byte]) if isinstance(byte, int) else byte)
                        time.sleep(outer.drip)
                except OSError:
                    pass  # the client had enough

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        said = self.answer(body["messages"][-1]["content"])
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": said},
            "finish_reason": self.finish,
        }
        if self.likely and body.get("logprobs"):
            choice["logprobs"] = {"content": [_told(token, others) for token, others in self.likely]}
        return {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice]}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _told(token: str, others: Mapping[str, float]) -> dict[str, Any]:
    listed = [{"token": other, "logprob": math.log(share)} for other, share in others.items()]
    return {"token": token, "logprob": math.log(others[token]), "top_logprobs": listed}


@pytest.fixture(scope="session")
def shared_server() -> Iterator[JudgeServer]:
    server = JudgeServer()
    yield server
    server.close()


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    made = JudgeServer()
    yield made
    made.close()
