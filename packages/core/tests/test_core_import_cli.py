"""`fulmen import`: which format reads a source, what is written, said and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fulmen_core.cli import main
from fulmen_core.cli.model_source import known_directory, model_directory
from fulmen_core.formats.known_models import KNOWN_MODELS
from fulmen_core.model.checkpoint import load_model, load_tensors
from fulmen_core.tokenizer import load_tokenizer

from . import huggingface_models as hf
from . import open_tokenizers as forms
from .gguf_models import write_gguf

PLUGIN = """
from pathlib import Path
from fulmen_core.descriptors import CheckpointFormatInfo
from fulmen_core.hooks import hookimpl

def read(path):
    from fulmen_core.formats.gguf.checkpoint import read
    return read(Path(path.read_text()))

@hookimpl
def fulmen_checkpoint_formats():
    return [CheckpointFormatInfo("pointer", "a file that names another", lambda path: path.suffix == ".pointer", read)]
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    hf.save("llama", tmp_path / "hf", 1)
    return write_gguf(tmp_path / "hf", tmp_path / "tiny.gguf")


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_a_gguf_file_becomes_a_model_folder_and_says_how(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(source), "--out", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["format"], result["family"]) == ("gguf", "llama")
    assert result["translated"]["layers"] == {"full attention, dense": 4}
    assert result["translated"]["tokens"] == 101
    assert result["parameters_total"] == sum(tensor.numel() for tensor in load_tensors(tmp_path / "out").values())
    assert load_tokenizer(tmp_path / "out").decode([2]) == "t0"


def test_a_hugging_face_folder_is_known_by_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = hf.save("qwen3_moe", tmp_path / "hf", 2)
    forms.save("smollm2", tmp_path / "hf")
    assert main(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "out")]) == 2  # the tokenizer is too large
    assert "101" in last_error(capsys)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "hf" / name).unlink()
    assert main(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "out")]) == 0
    assert "qwen3_moe from huggingface" in capsys.readouterr().out
    tokens = torch.randint(0, 101, (1, 12))
    model = load_model(tmp_path / "out")
    with torch.inference_mode():
        assert (model.logits(model(tokens).hidden_BTD) - hf.logits(original, tokens)).abs().max() < 1e-4


def test_a_format_of_a_plugin_is_found(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pointing.py").write_text(PLUGIN)
    (tmp_path / "model.pointer").write_text(str(source))
    words = ["--plugin", str(tmp_path / "pointing.py"), "import", str(tmp_path / "model.pointer"), "--json"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "pointer"


def test_the_dtype_is_the_one_asked_for(source: Path, tmp_path: Path) -> None:
    assert main(["import", str(source), "--out", str(tmp_path / "out"), "--dtype", "bfloat16"]) == 0
    assert {tensor.dtype for tensor in load_tensors(tmp_path / "out").values()} == {torch.bfloat16}


def test_a_dense_checkpoint_is_upcycled_on_the_way(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", str(source), "--out", str(tmp_path / "out"), "--json", "--upcycle"]
    assert main([*words, "experts=6", "active=3", "pattern=F"]) == 0
    assert json.loads(capsys.readouterr().out)["translated"]["layers"] == {"full attention, moe": 4}
    assert load_model(tmp_path / "out").config.num_experts_per_tok == 3
    assert main([*words, "expert=6"]) == 2
    assert "did you mean 'experts'" in last_error(capsys)


def test_an_older_model_is_replaced_and_anything_else_is_not(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["import", str(source), "--out", str(out)]) == 0
    (out / "note.txt").touch()
    assert main(["import", str(source), "--out", str(out)]) == 0
    assert not (out / "note.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert main(["import", str(source), "--out", str(tmp_path / "mine")]) == 2
    assert "is not empty" in last_error(capsys)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model.ckpt"])
def test_a_pickle_is_refused_in_words(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / name)
    assert main(["import", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    assert "is a pickle, which runs whatever code it holds" in last_error(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--out", "out"], "there is no checkpoint at nowhere"),
        (["readme.md", "--out", "out"], "readme.md is in no checkpoint format that is known: known are gguf"),
        (["readme.md"], "there is no --out"),
        (["readme.md", "--out", "out", "--format", "ggfu"], "unknown checkpoint format 'ggfu'"),
        (["readme.md", "--out", "out", "--format", "gguf"], "readme.md is no GGUF file"),
        (["readme.md", "--out", "out", "--dtype", "int3"], "argument --dtype: invalid choice"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "readme.md").write_text("hello")
    assert main(["import", *words]) == 2
    assert said in last_error(capsys)
    assert not (tmp_path / "out").exists()


def test_a_folder_called_like_a_known_model_is_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert model_directory(Path("smollm2")) == Path("smollm2")


def test_known_models_lie_in_the_cache_under_their_names(tmp_path: Path) -> None:
    for name, model in KNOWN_MODELS.items():
        assert known_directory(name, tmp_path).relative_to(tmp_path).parts == ("models", model.version, name)


def test_the_cache_is_the_users_or_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from fulmen_core.settings import Settings

    monkeypatch.delenv("FULMEN_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert Settings().cache_dir == Path("/somewhere/fulmen")
    monkeypatch.setenv("FULMEN_CACHE_DIR", "/elsewhere")
    assert Settings().cache_dir == Path("/elsewhere")
