"""A GGUF header is believed only as far as the file's length bears it out, and every lie is one sentence."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch  # noqa: F401 - so that no example pays for its import
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.formats.gguf.checkpoint import read
from fulmen_core.formats.gguf.container import GgufFile

TENSORS = {
    "token_embd.weight": (16, 32),
    "output_norm.weight": (32,),
    "blk.0.attn_norm.weight": (32,),
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_k.weight": (32, 32),
    "blk.0.attn_v.weight": (32, 32),
    "blk.0.attn_output.weight": (32, 32),
    "blk.0.ffn_norm.weight": (32,),
    "blk.0.ffn_gate.weight": (64, 32),
    "blk.0.ffn_up.weight": (64, 32),
    "blk.0.ffn_down.weight": (32, 64),
}


def write(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_bool("general.truth", True)
    writer.add_array("general.languages", ["en", "zh", "de"])
    writer.add_array("general.numbers", [1.5, -2.5])
    writer.add_array("general.nested", [["a"], ["b", "c"]])
    random = np.random.default_rng(0)
    for name, shape in TENSORS.items():
        values = random.normal(size=shape).astype(np.float32)
        if len(shape) == 2 and "attn" in name:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("gguf") / "whole.gguf").read_bytes()


def test_header_and_tensors_are_those_that_the_reference_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf")
    ours, reference = GgufFile(path), gguf.GGUFReader(path)
    for tensor in reference.tensors:
        info = ours.tensors[tensor.name]
        assert info.shape == tuple(tensor.shape.tolist())[::-1]
        assert info.kind.name == tensor.tensor_type.name
        assert ours.blocks(tensor.name).tobytes() == tensor.data.tobytes()
    for key in ("llama.block_count", "general.truth", "general.languages", "general.architecture"):
        assert ours.metadata[key] == reference.fields[key].contents()
    assert ours.metadata["general.numbers"].tolist() == [1.5, -2.5]
    assert ours.metadata["general.nested"] == [["a"], ["b", "c"]]
    assert ours.metadata["llama.attention.layer_norm_rms_epsilon"] == 1e-5
    assert len(ours.metadata) == len(reference.fields) - 3  # the reference counts version and counts as fields


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated")


def refusal_of(data: bytes, scratch: Path) -> str | None:
    """Read `data` as a file: what it is refused with, None if it loads. It never takes much memory."""
    path = scratch / "mutated.gguf"
    path.write_bytes(data)
    refusal = None
    tracemalloc.start()
    try:
        read(path).load("embed.weight")
    except UserError as error:
        refusal = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8_000_000
    return refusal


def in_words(refusal: str | None) -> bool:
    """Whether it is one line of text."""
    return bool(refusal) and "\n" not in str(refusal)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_altered_bytes_are_read_or_refused_in_words(whole: bytes, scratch: Path, data: st.DataObject) -> None:
    altered = bytearray(whole)
    header = whole.index(b"blk.0.ffn_down.weight") + 64
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, header))
        altered[place] = data.draw(st.integers(0, 255))
    refusal = refusal_of(bytes(altered), scratch)
    assert refusal is None or in_words(refusal)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_altered_numbers_are_read_or_refused_in_words(whole: bytes, scratch: Path, data: st.DataObject) -> None:
    """Whole fields at once: counts, lengths and offsets become huge, not only a byte larger."""
    altered = bytearray(whole)
    header = whole.index(b"blk.0.ffn_down.weight") + 64
    value = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1))
    place = data.draw(st.integers(0, header - 8))
    altered[place : place + 8] = struct.pack("<Q", value)
    refusal = refusal_of(bytes(altered), scratch)
    assert refusal is None or in_words(refusal)


@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_refused(whole: bytes, scratch: Path, share: float) -> None:
    path = scratch / "cut.gguf"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError):
        read(path)


@given(junk=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_anything_behind_the_magic_is_refused_in_words(scratch: Path, junk: bytes) -> None:
    assert in_words(refusal_of(b"GGUF" + junk, scratch))


def number_at(data: bytes, mark: bytes, skip: int, value: int, code: str = "<Q") -> bytes:
    """`data` with the number `skip` bytes behind `mark` replaced."""
    place = data.index(mark) + len(mark) + skip
    return data[:place] + struct.pack(code, value) + data[place + struct.calcsize(code) :]


LIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "tensor count": (lambda d: number_at(d, b"GGUF", 4, 2**60), "announces 1152921504606846976 tensors"),
    "entry count": (lambda d: number_at(d, b"GGUF", 12, 2**60), "announces 1152921504606846976 metadata entries"),
    "string length": (
        lambda d: number_at(d, b"general.architecture", 4, 2**62),
        "the value of 'general.architecture' would take 4611686018427387904 bytes",
    ),
    "array length": (lambda d: number_at(d, b"general.languages", 8, 2**50), "items of 'general.languages'"),
    "numbers": (lambda d: number_at(d, b"general.numbers", 8, 2**50), "the value of 'general.numbers'"),
    "value type": (
        lambda d: number_at(d, b"general.truth", 0, 77, "<I"),
        "'general.truth' has the unknown value type 77",
    ),
    "truth": (lambda d: number_at(d, b"general.truth", 4, 2, "<B"), "'general.truth' holds a truth value"),
    "dimensions": (lambda d: number_at(d, b"output_norm.weight", 0, 9, "<I"), "'output_norm.weight' has 9 dimensions"),
    "shape": (lambda d: number_at(d, b"output_norm.weight", 4, 2**60), "'output_norm.weight' of shape"),
    "empty": (lambda d: number_at(d, b"output_norm.weight", 4, 0), r"'output_norm.weight' of shape \(0,\) is empty"),
    "type": (lambda d: number_at(d, b"output_norm.weight", 12, 10, "<I"), "'output_norm.weight' has the type Q2_K"),
    "unknown type": (lambda d: number_at(d, b"output_norm.weight", 12, 99, "<I"), "has the type 99"),
    "blocks": (lambda d: number_at(d, b"blk.0.attn_q.weight", 4, 31), r"31 wide, are no whole Q8_0 blocks of 32"),
    "offset": (lambda d: number_at(d, b"output_norm.weight", 16, 2**40), "'output_norm.weight' .* beyond the end"),
    "alignment": (lambda d: number_at(d, b"output_norm.weight", 16, 7), "lies at offset 7, which is no multiple of 32"),
    "overlap": (lambda d: number_at(d, b"output_norm.weight", 16, 0), "overlaps another"),
    "twice": (
        lambda d: d.replace(b"blk.0.attn_q.weight", b"blk.0.attn_v.weight"),
        "'blk.0.attn_v.weight' is there twice",
    ),
    "UTF-8": (lambda d: d.replace(b"llama", b"\xff\xfe\xff\xfe\xff"), "is not UTF-8"),
    "missing": (
        lambda d: d.replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight"),
        "'blk.0.attn_q.weight' is missing",
    ),
    "version": (lambda d: number_at(d, b"GGUF", 0, 1, "<I"), "has GGUF version 1, which is not supported"),
    "byte order": (lambda d: number_at(d, b"GGUF", 0, 3 << 24, "<I"), "is big-endian"),
    "magic": (lambda d: b"GGML" + d[4:], "is no GGUF file"),
    "field": (lambda d: number_at(d, b"llama.block_count", 4, 0, "<I"), "num_hidden_layers"),
    "field type": (
        lambda d: number_at(d, b"llama.block_count", 0, 6, "<I"),
        "llama.block_count is .* not a whole number",
    ),
    "field missing": (
        lambda d: d.replace(b"llama.block_count", b"llama.block_counx"),
        "the metadata lack llama.block_count",
    ),
    "heads": (lambda d: number_at(d, b"llama.attention.head_count\x04\0\0\0", 0, 0, "<I"), "no attention heads"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_with_the_name_of_what_lies(lie: str, whole: bytes, tmp_path: Path) -> None:
    alter, said = LIES[lie]
    path = tmp_path / "model.gguf"
    path.write_bytes(alter(whole))
    with pytest.raises(UserError, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_damage_is_told_from_what_is_only_not_supported(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole[:-100])
    with pytest.raises(CorruptArtefact, match="the file is damaged or was not written whole"):
        read(path)


def test_a_part_of_a_split_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="one of 3 parts"):
        read(path)


def test_an_empty_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(UserError, match="is no GGUF file"):
        read(tmp_path / "empty.gguf")
    with pytest.raises(UserError, match=r"nowhere\.gguf cannot be read: No such file"):
        read(tmp_path / "nowhere.gguf")
