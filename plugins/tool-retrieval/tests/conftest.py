"""Documents to index, and a real server of embeddings."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fulmen_tool_retrieval.documents import Document
from fulmen_tool_retrieval.hashed_ngrams import HashedNgrams

HANDBOOK = [
    Document("leave.md", "Leave", "Employees get thirty days of holiday each year. Unused days expire on 31 March."),
    Document("vpn.md", "Network", "Connect to the network with WireGuard. The host is vpn.example.org, port 51820."),
    Document(
        "trees.md", "Gardening", "The lawnmowers are kept in the shed behind the greenhouse; the key hangs inside."
    ),
    Document("请假.md", "请假制度", "员工每年享有三十天年假。未使用的年假于三月三十一日失效。病假须提交医生证明。"),
    Document("网络.md", "网络", "请使用 WireGuard 连接公司网络。打印机位于二楼走廊尽头。"),
]


class EmbeddingServer:
    """``POST /v1/embeddings`` over the hashed embedder: what a real server of another model would answer."""

    def __init__(self) -> None:
        self.embedder = HashedNgrams.fit([document.text for document in HANDBOOK])
        self.calls: list[dict[str, object]] = []
        self.keys: list[str] = []
        self.fault = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.calls.append(body)
                outer.keys.append(self.headers.get("Authorization", ""))
                answer = outer.answer(body) if not outer.fault else outer.fault
                data = answer.encode()
                self.send_response(503 if outer.fault == "busy" else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, body: dict[str, object]) -> str:
        texts = body["input"]
        assert isinstance(texts, list)
        vectors = self.embedder.embed_documents(texts)
        rows = [{"index": index, "embedding": (3 * row).tolist()} for index, row in enumerate(vectors)]
        return json.dumps({"object": "list", "data": rows[::-1], "model": body["model"]})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def handbook() -> list[Document]:
    return list(HANDBOOK)


@pytest.fixture
def embedding_server() -> Iterator[EmbeddingServer]:
    server = EmbeddingServer()
    yield server
    server.close()
