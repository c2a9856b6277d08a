"""Nodes of a graph for the native kernels.

An artefact names ONNX Runtime's operators, so that it runs anywhere. When the runner opens it, the nodes that the
kernels can compute are given another domain, in which the compiled library has operators of the same names, inputs and
results, rounded alike. Nothing else of the graph changes, and nothing on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fulmen_backend_onnxruntime.block_quantization import ROUNDED_INPUT

#: As ``native/library.cpp`` calls it.
DOMAIN = "fulmen.native"

#: What the library computes: type of a node -> its attribute of bits, and its inputs that may be given.
_COMPUTED = {"MatMulNBits": ("bits", frozenset(range(3))), "QMoE": ("expert_weight_bits", frozenset((*range(7), 14)))}


def with_native_nodes(model: bytes) -> bytes:
    """An ONNX model in which the nodes that the library computes are in its domain.

    Works on the encoding (protocol buffers), as serving needs no `onnx`. Fields that are not understood are kept.
    """
    parts = [
        _encoded(_MODEL_GRAPH, b"".join(map(_native_part, _fields(field.content))))
        if field.number == _MODEL_GRAPH
        else field.whole
        for field in _fields(model)
    ]
    version = _encoded(_OPSET_DOMAIN, DOMAIN.encode()) + bytes((_OPSET_VERSION << 3, 1))
    return b"".join((*parts, _encoded(_MODEL_OPSET, version)))


# onnx.proto: the numbers of the fields that are read or written.
_MODEL_GRAPH, _MODEL_OPSET = 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE = 1
_NODE_INPUT, _NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER = 1, 3


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a message: its number, its content (of a number: as it is encoded), and all its bytes."""

    number: int
    content: bytes
    whole: bytes


def _fields(message: bytes) -> Iterator[_Field]:
    place = 0
    while place < len(message):
        start = place
        tag, place = _number(message, place)
        kind = tag & 7
        if kind == 0:
            _, end = _number(message, place)
        elif kind == 2:
            length, place = _number(message, place)
            end = place + length
        else:
            end = place + {1: 8, 5: 4}[kind]
        yield _Field(tag >> 3, message[place:end], message[start:end])
        place = end


def _number(message: bytes, place: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _encoded(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    length, size = bytearray(), len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes((number << 3 | 2, *length, size)) + content


def _native_part(part: _Field) -> bytes:
    """A field of a graph: a node that the library computes in its domain, everything else as it is."""
    if part.number != _GRAPH_NODE:
        return part.whole
    fields = list(_fields(part.content))
    if not _is_computed(fields):
        return part.whole
    kept = b"".join(one.whole for one in fields if one.number != _NODE_DOMAIN)
    return _encoded(_GRAPH_NODE, kept + _encoded(_NODE_DOMAIN, DOMAIN.encode()))


def _is_computed(node: Sequence[_Field]) -> bool:
    kind = next((one.content.decode() for one in node if one.number == _NODE_TYPE), "")
    if kind not in _COMPUTED:
        return False
    bits, inputs = _COMPUTED[kind]
    names = [one.content for one in node if one.number == _NODE_INPUT]
    integers = dict(_integer_attribute(one.content) for one in node if one.number == _NODE_ATTRIBUTE)
    return (
        all(place in inputs for place, name in enumerate(names) if name)
        and integers.get(bits) in (4, 8)
        and integers.get("accuracy_level") == ROUNDED_INPUT
    )


def _integer_attribute(attribute: bytes) -> tuple[str, int | None]:
    """An attribute's name and, if it has one, its integer."""
    found = {one.number: one.content for one in _fields(attribute)}
    name, integer = found[_ATTRIBUTE_NAME].decode(), found.get(_ATTRIBUTE_INTEGER)
    return name, None if integer is None else _number(integer, 0)[0]
