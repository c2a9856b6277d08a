"""Kernels of our own for quantised products and mixtures, ``native/``: whether they compute, and why not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from fulmen_backend_onnxruntime.providers import CPU
from fulmen_core.errors import CapabilityError
from fulmen_core.native_build import Native, NativeUnavailable, build_library, find_compiler, processor_features
from fulmen_core.suggestions import closest

OPERATORS = Native("operators for ONNX Runtime", Path(__file__).parent / "native")

_NEEDED = "avx512_vnni"
_CHOICES = ("native", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Kernels:
    """Whose kernels compute what is quantised, and why."""

    native: bool
    reason: str
    asked_for: bool = False

    def described(self) -> dict[str, str]:
        """Return both in words, for those who ask what a runner chose."""
        return {"kernels": "native" if self.native else "onnxruntime", "kernels_reason": self.reason}

    def compiled(self) -> tuple[Kernels, Path | None]:
        """Return these with their library, compiled first if this machine has not yet. Where that cannot be done, or
        they are ONNX Runtime's: those, and None.

        Raises:
            CapabilityError: ours are asked for and cannot be compiled here.
        """
        if not self.native:
            return self, None
        try:
            return self, build_library(OPERATORS)
        except NativeUnavailable as error:
            return self._without(error), None

    def _without(self, error: NativeUnavailable) -> Kernels:
        if self.asked_for:
            raise CapabilityError(f"no native kernels: {error}", remedy=_REMEDY) from error
        return Kernels(native=False, reason=str(error))


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
        return Kernels(native=False, reason="asked for", asked_for=True)
    ours = Kernels(native=True, reason="", asked_for=asked is not None)
    try:
        return replace(ours, reason=f"by {_usable(provider, quantized=quantized)}")
    except NativeUnavailable as error:
        return ours._without(error)


def _usable(provider: str, *, quantized: bool) -> str:
    """What compiles them."""
    if not quantized:
        raise NativeUnavailable("nothing in the artefact is quantised")
    if provider != CPU:
        raise NativeUnavailable(f"{provider} has kernels of its own")
    if _NEEDED not in processor_features().split():
        raise NativeUnavailable(f"this processor has no {_NEEDED}")
    return find_compiler().version
