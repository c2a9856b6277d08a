"""A checkpoint comes back bit for bit; a damaged, truncated or untrue one is refused before anything is allocated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.model.checkpoint import (
    check_tokenizer_fits,
    load_config,
    load_model,
    load_tensors,
    save_model,
    save_tensors,
)
from fulmen_core.model.initialisation import SkipInitialisation
from fulmen_core.model.presets import load_preset
from fulmen_core.model.safetensors_header import read_header
from fulmen_core.model.safetensors_writer import write_safetensors
from fulmen_core.model.transformer import Transformer

TINY = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 4, "layer_pattern": "SF", "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "moe_intermediate_size": 8, "eos_token_id": 3,
}  # fmt: skip


def tiny(**changes: Any) -> Transformer:
    return Transformer(load_preset("nano").model_copy(update=TINY | changes))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tiny(), tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shard_bytes", [10**9, 5_000], ids=["one file", "shards"])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype, shard_bytes: int, tied: bool) -> None:
    model = tiny(tie_word_embeddings=tied).to(dtype)
    save_model(model, tmp_path, shard_bytes=shard_bytes)

    again = load_model(tmp_path, dtype)

    assert again.config == model.config
    assert list(again.state_dict()) == list(model.state_dict())
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
        assert again.state_dict()[name].dtype == dtype
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_bytes == 5_000)


def test_a_routers_bias_keeps_its_precision_in_a_model_of_less(tmp_path: Path) -> None:
    model = tiny(router_bias=True).to(torch.bfloat16)
    bias = model.block(1).ffn.router.bias
    bias += torch.randn(8)
    save_model(model, tmp_path)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        again = load_model(tmp_path, dtype).block(1).ffn.router
        assert torch.equal(again.bias, bias)
        assert again.weight.dtype == dtype


def test_tensors_of_mixed_precision_are_written_where_readers_that_map_the_file_find_them(tmp_path: Path) -> None:
    shapes = {"a": (3,), "b": (5,), "c": (2, 2), "d": (1,)}
    dtypes = [torch.bfloat16, torch.float32, torch.float64, torch.float16]
    tensors = {name: torch.randn(shape).to(dtype) for (name, shape), dtype in zip(shapes.items(), dtypes, strict=True)}
    write_safetensors(tmp_path, shapes, tensors.__getitem__)
    again = load_tensors(tmp_path)
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    for path in tmp_path.glob("*.safetensors"):  # transformers' reader, which no header of ours shall surprise
        assert all(torch.equal(tensors[name], tensor) for name, tensor in load_file(path).items())


def test_a_model_whose_tensors_fail_on_the_way_leaves_the_older_one_whole(saved: Path) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    model = tiny()

    def load(name: str) -> torch.Tensor:
        if name == "norm.weight":
            raise OSError("the disk went away")
        return model.state_dict()[name]

    with pytest.raises(UserError, match="cannot be written"):
        save_tensors(model.config, load, saved, shard_bytes=5_000)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_loaded_model_computes_what_the_saved_one_does(saved: Path) -> None:
    save_model(model := tiny(), saved)
    tokens_BT = torch.randint(0, 32, (2, 20))
    assert torch.equal(load_model(saved)(tokens_BT).hidden_BTD, model.eval()(tokens_BT).hidden_BTD)


def test_saving_as_one_file_over_shards_leaves_no_shard_to_be_mistaken_for_it(tmp_path: Path) -> None:
    save_model(tiny(), tmp_path, shard_bytes=5_000)
    save_model(model := tiny(), tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    save_model(model, tmp_path, shard_bytes=5_000)
    assert not (tmp_path / "model.safetensors").exists()
    assert torch.equal(load_model(tmp_path).embed.weight, model.embed.weight)


def test_a_loaded_model_does_not_follow_later_writes_to_its_file(saved: Path) -> None:
    model = load_model(saved)
    before = model.embed.weight.clone()
    path = saved / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(model.embed.weight, before)


def test_extra_tensors_ride_along_and_stay_out_of_the_model(tmp_path: Path) -> None:
    head = torch.randn(16)
    save_model(tiny(), tmp_path, {"reward_head.weight": head})
    assert "reward_head.weight" not in load_model(tmp_path).state_dict()
    assert torch.equal(load_tensors(tmp_path)["reward_head.weight"], head)
    with pytest.raises(ValueError, match="name of a weight"):
        save_model(tiny(), tmp_path, {"embed.weight": head})


def test_the_folder_is_laid_out_as_hugging_face_does(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "fulmen"
    assert config["dtype"] == "float32"
    assert json.loads((saved / "generation_config.json").read_text()) == {"eos_token_id": 3}


def test_what_hugging_faces_tools_add_to_a_config_is_tolerated(saved: Path) -> None:
    edit(
        saved, lambda c: c.update(torch_dtype="float32", transformers_version="5.0", hidden_act="silu", use_cache=True)
    )
    assert load_config(saved).hidden_size == 16


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.update(slidding_window=4), "did you mean 'sliding_window'"),
        (
            lambda c: c["balance"].update(switch_alfa=1),
            "unknown key 'balance.switch_alfa'.*did you mean 'switch_alpha'",
        ),
        (
            lambda c: c.update(rope_scaling={"rope_type": "linear", "faktor": 2.0}),
            "did you mean 'factor'|'rope_scaling.factor' is missing",
        ),
        (lambda c: c.update(rope_scaling={"rope_type": "yarn", "factor": 2.0}), "yarn.*needs original_max_position"),
        (lambda c: c.pop("hidden_size"), "key 'hidden_size' is missing"),
        (lambda c: c.update(hidden_size="wide"), "hidden_size: .*integer"),
        (lambda c: c.update(num_key_value_heads=3), "not a multiple of num_key_value_heads 3"),
        (lambda c: c.update(num_hidden_layers=10**12), "num_hidden_layers: .*less than or equal"),
        (lambda c: c.update(hidden_act="gelu"), "hidden_act 'gelu' is not supported"),
        (lambda c: c.update(moe_intermediate_size=12), "multiples of 8"),
    ],
)
def test_a_wrong_config_is_one_sentence(saved: Path, change: Callable[[dict[str, Any]], Any], sentence: str) -> None:
    edit(saved, change)
    with pytest.raises(UserError, match=sentence) as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


def test_missing_folders_and_files_are_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="there is no folder"):
        save_model(tiny(), tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        load_model(saved)
    (saved / "config.json").unlink()
    with pytest.raises(UserError, match="holds no model"):
        load_model(saved)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved: Path, kept: float) -> None:
    path = saved / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(CorruptArtefact, match=r"model\.safetensors is corrupt"):
        load_model(saved)


@pytest.mark.parametrize("change", [b"", b"0" * 8])
def test_the_header_alone_tells_that_bytes_are_missing_or_too_many(saved: Path, change: bytes) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + change * 2)
    with pytest.raises(CorruptArtefact, match=r"it has \d+ bytes and its header describes \d+"):
        read_header(path)


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        (lambda h: h["norm.weight"].update(shape=[2**40, 2**20]), "does not fill its"),
        (lambda h: h["norm.weight"].update(shape=[-16]), "no valid shape"),
        (lambda h: h["norm.weight"].update(shape=[16.0]), "no valid shape"),
        (lambda h: h["norm.weight"].update(shape=[4, 4]), r"is \(4, 4\) and the config says \(16,\)"),
        (lambda h: h["norm.weight"].update(dtype="I32"), "dtype I32, which no weight has"),
        (lambda h: h["norm.weight"].update(dtype="F7"), "no known dtype"),
        (lambda h: h["norm.weight"].update(data_offsets=h["embed.weight"]["data_offsets"][:1] * 2), "does not fill"),
        (lambda h: h["norm.weight"].update(data_offsets=[0, 64]), "overlap or leave gaps"),
        (lambda h: h.update({"norm.bias": h.pop("norm.weight")}), "'norm.weight' is missing"),
        (lambda h: h.update(extra_layer={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}), "does not describe"),
        (lambda h: h.update(__metadata__={"a": 1}), "metadata are not strings"),
        (lambda h: h.update({"norm.weight": 5}), "no known dtype"),
    ],
)
def test_a_header_that_lies_is_refused(saved: Path, lie: Callable[[dict[str, Any]], Any], sentence: str) -> None:
    path = saved / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    lie(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(CorruptArtefact, match=sentence):
        load_model(saved)


@given(position=st.integers(0, 4_000), byte=st.integers(0, 255))
@settings(max_examples=50, deadline=None)
def test_no_altered_byte_in_the_header_raises_anything_but_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    folder = tmp_path_factory.mktemp("model")
    save_model(tiny(), folder)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[position % len(data)] = byte
    path.write_bytes(data)
    said = str(folder)
    try:
        load_model(folder)
    except CorruptArtefact as error:
        said = str(error)
    assert str(folder) in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d, i: (d / i["weight_map"]["norm.weight"]).unlink(), "shard .* is missing"),
        (lambda d, i: i["weight_map"].update({"norm.weight": "../elsewhere.safetensors"}), "outside its folder"),
        (lambda d, i: i["weight_map"].pop("norm.weight"), "list different tensors"),
        (lambda d, i: i["weight_map"].update({"norm.weight": i["weight_map"]["embed.weight"]}), "different tensors"),
        (lambda d, i: i.update(weight_map=[]), "no valid weight_map"),
    ],
)
def test_shards_and_index_must_agree(tmp_path: Path, damage: Callable[[Path, Any], Any], sentence: str) -> None:
    save_model(tiny(), tmp_path, shard_bytes=5_000)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    damage(tmp_path, index)
    path.write_text(json.dumps(index))
    with pytest.raises(CorruptArtefact, match=sentence):
        load_model(tmp_path)


def test_a_save_that_fails_leaves_the_old_model_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = load_tensors(saved)
    monkeypatch.setattr("os.fsync", _disk_full)
    with pytest.raises(UserError, match="cannot be written"):
        save_model(tiny(), saved)
    monkeypatch.undo()
    assert {path.name for path in saved.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    for name, tensor in load_tensors(saved).items():
        assert torch.equal(tensor, old[name])


def _disk_full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(saved: Path) -> None:
    config = load_config(saved)
    check_tokenizer_fits(config, 32)
    with pytest.raises(UserError, match="the tokenizer has 33 ids and the model 32"):
        check_tokenizer_fits(config, 33)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_initialisers_leave_tensors_alone_where_weights_are_read_from_files() -> None:
    kept = torch.full((3, 4), 7.0)
    with SkipInitialisation():
        torch.nn.init.normal_(kept)
        torch.nn.init.kaiming_uniform_(tensor=kept)
    assert bool((kept == 7).all())
    torch.nn.init.ones_(kept)
    assert bool((kept == 1).all())
