"""Kernels of our own for quantised products and mixtures, as operators that ONNX Runtime calls: ``native/``.

An artefact names ONNX Runtime's operators, so that it runs anywhere. When the runner opens it, the nodes that the
kernels can compute are given another domain, in which the compiled library has operators of the same names, inputs and
results, rounded alike. Nothing else of the graph changes, and nothing on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fulmen_backend_onnxruntime.block_quantization import ROUNDED_INPUT
from fulmen_backend_onnxruntime.providers import CPU
from fulmen_core.errors import CapabilityError
from fulmen_core.native_build import Native, NativeUnavailable, build_library, find_compiler, processor_features
from fulmen_core.suggestions import closest

OPERATORS = Native("operators for ONNX Runtime", Path(__file__).parent / "native")
#: As ``native/library.cpp`` calls it.
DOMAIN = "fulmen.native"

_NEEDED = "avx512_vnni"
_CHOICES = ("native", "onnxruntime")

#: What the library computes: type of a node -> its attribute of bits, and its inputs that may be given.
_COMPUTED = {"MatMulNBits": ("bits", frozenset(range(3))), "QMoE": ("expert_weight_bits", frozenset((*range(7), 14)))}


@dataclass(frozen=True, slots=True)
class Kernels:
    """Whose kernels compute what is quantised, and why."""

    native: bool
    reason: str

    def described(self) -> dict[str, str]:
        """Return both in words, for those who ask what a runner chose."""
        return {"kernels": "native" if self.native else "onnxruntime", "kernels_reason": self.reason}

    def library(self) -> Path | None:
        """Return the compiled operators, compiling them first if this machine has not yet; None: ONNX Runtime's serve.

        Raises:
            CapabilityError: they cannot be compiled here.
        """
        if not self.native:
            return None
        try:
            return build_library(OPERATORS)
        except NativeUnavailable as error:
            raise CapabilityError(f"kernels for ONNX Runtime: {error}", remedy=_REMEDY) from error


_REMEDY = "choose ONNX Runtime's own: --backend-option kernels=onnxruntime"


def choose_kernels(asked: str | None, provider: str, *, quantized: bool) -> Kernels:
    """The kernels called `asked`, "native" or "onnxruntime"; None: ours where they can be had. Compiles nothing.

    Args:
        asked: by the user.
        provider: the full name of the execution provider.
        quantized: whether the artefact is.

    Raises:
        CapabilityError: there are no such kernels, or ours are asked for and cannot be had here.
    """
    if asked not in (None, *_CHOICES):
        near = closest(str(asked), _CHOICES)
        remedy = f"did you mean {near!r}?" if near else "choose native or onnxruntime"
        raise CapabilityError(f"there are no kernels {asked!r}", remedy=remedy)
    if asked == "onnxruntime":
        return Kernels(False, "asked for")
    try:
        compiler = _usable(provider, quantized=quantized)
    except NativeUnavailable as error:
        if asked:
            raise CapabilityError(f"no native kernels: {error}", remedy=_REMEDY) from error
        return Kernels(False, str(error))
    return Kernels(True, f"by {compiler}")


def _usable(provider: str, *, quantized: bool) -> str:
    """What compiles them."""
    if not quantized:
        raise NativeUnavailable("nothing in the artefact is quantised")
    if provider != CPU:
        raise NativeUnavailable(f"{provider} has kernels of its own")
    if _NEEDED not in processor_features().split():
        raise NativeUnavailable(f"this processor has no {_NEEDED}")
    return find_compiler().version


def with_native_nodes(model: bytes) -> tuple[bytes, int]:
    """An ONNX model in which the nodes that the library computes are in its domain, and how many these are.

    Works on the encoding (protocol buffers), as serving needs no `onnx`. Fields that are not understood are kept.
    """
    count = 0
    parts = []
    for field in _fields(model):
        if field.number == _MODEL_GRAPH:
            nodes = [_native_node(one) if one.number == _GRAPH_NODE else None for one in _fields(field.content)]
            count += sum(one is not None for one in nodes)
            kept = (one.whole for one in _fields(field.content))
            content = b"".join(new or old for new, old in zip(nodes, kept, strict=True))
            parts.append(_encoded(_MODEL_GRAPH, content))
        else:
            parts.append(field.whole)
    version = _encoded(_OPSET_DOMAIN, DOMAIN.encode()) + bytes((_OPSET_VERSION << 3, 1))
    return b"".join((*parts, _encoded(_MODEL_OPSET, version))), count


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


def _native_node(node: _Field) -> bytes | None:
    """The field of a node in the library's domain; None: the library does not compute it."""
    fields = list(_fields(node.content))
    kind = next((one.content.decode() for one in fields if one.number == _NODE_TYPE), "")
    if kind not in _COMPUTED:
        return None
    bits, inputs = _COMPUTED[kind]
    given = (one.content for one in fields if one.number == _NODE_INPUT)
    if not {place for place, name in enumerate(given) if name} <= inputs:
        return None
    integers = dict(_integer_attribute(one.content) for one in fields if one.number == _NODE_ATTRIBUTE)
    if integers.get(bits) not in (4, 8) or integers.get("accuracy_level") != ROUNDED_INPUT:
        return None
    kept = b"".join(one.whole for one in fields if one.number != _NODE_DOMAIN)
    return _encoded(_GRAPH_NODE, kept + _encoded(_NODE_DOMAIN, DOMAIN.encode()))


def _integer_attribute(attribute: bytes) -> tuple[str, int | None]:
    """An attribute's name and, if it has one, its integer."""
    found = {one.number: one.content for one in _fields(attribute)}
    name, integer = found[_ATTRIBUTE_NAME].decode(), found.get(_ATTRIBUTE_INTEGER)
    return name, None if integer is None else _number(integer, 0)[0]
