"""What an artefact is asked to be. An exporter honours each option or refuses it by name; none is ignored."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

from fulmen_core.backend import Dtype, Quantization
from fulmen_core.errors import CapabilityError


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of `fulmen_core.backend.Exporter.export`.

    Attributes:
        dtype: of weights that are not quantised, of caches and of arithmetic.
        quantize: of weights.
        max_sequences, max_context, max_step_tokens: the engine's limits, for artefacts with fixed shapes or profiles.
            `max_context` None is the model's own.
        compute_capabilities: of the GPUs to build for ahead of time, e.g. "8.9".
    """

    dtype: Dtype = "float32"
    quantize: Quantization | None = None
    max_sequences: int = 8
    max_context: int | None = None
    max_step_tokens: int = 512
    compute_capabilities: tuple[str, ...] = ()

    def check(
        self,
        exporter: str,
        *,
        dtypes: tuple[Dtype, ...],
        quantizations: tuple[Quantization, ...] = (),
        honours: Collection[str] = (),
    ) -> None:
        """Refuse what an exporter cannot do: another dtype or quantisation, and a changed option it does not honour.

        Raises:
            CapabilityError: the first such option.
        """
        if self.dtype not in dtypes:
            raise CapabilityError(
                f"the exporter {exporter} writes no {self.dtype}", remedy=f"choose --dtype {' or '.join(dtypes)}"
            )
        if self.quantize is not None and self.quantize not in quantizations:
            known = f"choose --quantize {' or '.join(quantizations)}" if quantizations else "leave --quantize out"
            raise CapabilityError(f"the exporter {exporter} does not quantise to {self.quantize}", remedy=known)
        default = ExportOptions()
        for field in fields(self):
            judged = field.name in ("dtype", "quantize") or field.name in honours
            if not judged and getattr(self, field.name) != getattr(default, field.name):
                option = "--" + field.name.replace("_", "-").replace("capabilities", "capability")
                raise CapabilityError(f"{option} means nothing to the exporter {exporter}", remedy="leave it out")
