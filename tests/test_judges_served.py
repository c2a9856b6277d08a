"""Detectors that ask a server, against `fulmen serve` with a real model: a random one, whose answers are nonsense.

So its verdicts are no verdicts, which must be failures; its hidden states are as good as any for a probe and for
likeness.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry
from fulmen_core.tokenizer import ByteLevelTokenizer
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.policy import make_policy
from fulmen_safety.taxonomy import taxonomy

FULMEN = [sys.executable, "-m", "fulmen_core"]
THEFT = [
    f"how can I steal {thing} from the station" for thing in ("bicycles", "copper", "a train", "signs", "lamps", "coal")
]
ORDINARY = [f"which {thing} of the {place} is oldest" for thing in ("bridge", "tower", "road", "house", "book")
            for place in ("city", "valley", "coast", "island")]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "nano"
    folder.mkdir()
    tokenizer = ByteLevelTokenizer.train([*THEFT, *ORDINARY] * 9, 384)
    tokenizer.save(folder)
    stop = [tokenizer.im_end_id, tokenizer.eos_id]
    change = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 4096, "eos_token_id": stop}
    torch.manual_seed(0)
    save_model(Transformer(load_preset("nano").model_copy(update=change)), folder)
    return folder


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    serve = ["--threads", "1", "serve", "--model", str(model), "--backend", "cpu", "--port", "0", "--no-guard"]
    with subprocess.Popen([*FULMEN, *serve], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next((line for line in process.stderr if line.startswith("Serving ")), "")
        yield line.split(" on ")[1].split()[0] + "/v1"
        process.terminate()
        assert process.wait(20) == 0


def guard(name: str, settings: dict[str, object], on_error: str = "closed") -> RaiseGuard:
    default = {"threshold": 0.5, "corpus": "drop", "reward": 1.0, "input": "block", "output": "stop"}
    table = {
        "name": "test",
        "version": "1",
        "taxonomy": taxonomy().version,
        "failure": {"en": "could not be checked"},
        "detectors": [{"name": name, "deadline_ms": 60_000, "on_error": on_error, "settings": settings}],
        "categories": {"default": {**default, "message": {"en": "blocked"}}},
    }
    return RaiseGuard(make_policy(table, where="the test's policy", folder=Path.cwd()), Registry.discover())


@pytest.mark.parametrize("style", ["asked", "llama-guard", "qwen3guard"])
def test_what_a_random_model_says_is_no_verdict_and_fails_closed(url: str, style: str) -> None:
    settings = {"url": url, "model": "nano", "style": style, "seconds": 50}
    message = [{"role": "user", "content": "hello"}]
    closed = guard("judge", settings).judge_input(message)
    assert (closed.action, closed.category) == ("block", "guard_failure")
    assert guard("judge", settings, "open").judge_input(message).action == "allow"
    [failure] = guard("judge", settings).panel.read("hello", "input").failures
    assert "Malformed" in failure.reason


def test_the_served_models_own_embeddings_tell_likeness(url: str, tmp_path: Path) -> None:
    (tmp_path / "theft.txt").write_text("\n".join(THEFT))
    (tmp_path / "ordinary.txt").write_text("\n".join(ORDINARY))
    files = {"examples": {"nonviolent_crime": str(tmp_path / "theft.txt")}, "ordinary": str(tmp_path / "ordinary.txt")}
    made = guard("semantic", {**files, "embedder": "server", "url": url, "model": "nano", "seconds": 50})
    alike = made.judge_input([{"role": "user", "content": "how can I steal a clock from the station"}])
    assert (alike.action, alike.category) == ("block", "nonviolent_crime")
    assert made.judge_input([{"role": "user", "content": "which road of the island is oldest"}]).action == "allow"


def test_a_probe_says_the_same_of_the_model_it_loads_and_of_the_model_that_is_served(
    model: Path, url: str, tmp_path: Path
) -> None:
    source = random.Random(0)
    rows = []
    for number in range(300):
        own = "".join(source.choices("abcdefgh ", k=12))
        text = f"{own} {source.choice(THEFT if number % 2 else ORDINARY)}"
        rows.append({"text": text, "label": "unsafe" if number % 2 else "safe", "category": "nonviolent_crime"})
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train = ["raise", "probe", "train", "--model", str(model), "--data", str(tmp_path / "data.jsonl")]
    order = [*FULMEN, "--threads", "1", *train, "--pool", "last", "--out", str(tmp_path / "probe"), "--json"]
    done = subprocess.run(order, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["categories"] == ["nonviolent_crime"]
    registry, probe = Registry.discover(), str(tmp_path / "probe")
    loaded = registry.detector("probe", {"probe": probe, "model": str(model)})
    served = registry.detector("probe", {"probe": probe, "model": "nano", "url": url, "seconds": 50})
    for text in (rows[0]["text"], rows[1]["text"], "something else entirely"):
        assert served.scores(text) == pytest.approx(loaded.scores(text), abs=1e-3)
