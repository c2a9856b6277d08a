"""What an adapter folder holds, from its config and the header of its tensors: cheap, and without torch.

Legend: R rank, I inputs, O outputs of a projection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fulmen_core.adapters.peft_config import CONFIG_FILE, PeftConfig
from fulmen_core.adapters.projections import projection_places, why_absent
from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.safetensors_header import TensorEntry, read_header

WEIGHTS_FILE = "adapter_model.safetensors"

_PICKLE = "adapter_model.bin"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_DTYPES = ("F64", "F32", "F16", "BF16")
#: Parts of tensors' names that say what cannot be applied.
_VARIANTS = {
    "lora_magnitude_vector": "DoRA is not served",
    "lora_A.bias": "biases of adapters are not served",
    "lora_B.bias": "biases of adapters are not served",
    "modules_to_save": "modules that were trained whole are not served",
    "embed_tokens": "embeddings and heads are served as they are",
    "lm_head": "embeddings and heads are served as they are",
}


@dataclass(frozen=True, slots=True)
class ModuleDelta:
    """How one module is changed: ``y_O += scaling * B_OR A_RI x_I``."""

    rank: int
    inputs: int
    outputs: int
    scaling: float


@dataclass(frozen=True, slots=True)
class AdapterDescription:
    """An adapter folder whose two files agree with each other.

    Attributes:
        directory: the folder.
        fingerprint: of names, sizes and times of both files, in hexadecimal: another one means a replaced adapter.
        base_model: the model that it was trained on, as its author called it; empty if unknown.
        rank: the largest of its modules.
        target_modules: the last parts of its modules' names, sorted.
        modules: by the name of Hugging Face's module.
    """

    directory: Path
    fingerprint: str
    base_model: str
    rank: int
    target_modules: tuple[str, ...]
    modules: Mapping[str, ModuleDelta]

    @classmethod
    def inspect(cls, directory: Path) -> AdapterDescription:
        """Read the config and the header in `directory`; no tensor is read.

        Raises:
            UserError: there is no such folder or file, or the adapter is of a kind that is not served.
            CorruptArtefact: a file is damaged, or the two contradict each other.
        """
        if not directory.is_dir():
            raise UserError(f"there is no adapter folder {directory}", remedy="check the path")
        fingerprint = fingerprint_of(directory)
        config = PeftConfig.read(directory)
        weights = directory / WEIGHTS_FILE
        tensors = read_header(weights).tensors
        modules = {module: _delta(module, a, b, config, weights) for module, (a, b) in _pairs(tensors, weights).items()}
        return cls(
            directory,
            fingerprint,
            config.base_model,
            max(delta.rank for delta in modules.values()),
            tuple(sorted({module.rpartition(".")[2] for module in modules})),
            modules,
        )

    def check(self, config: ModelConfig, max_rank: int) -> None:
        """Refuse an adapter that a model of `config` cannot be served with.

        Raises:
            UserError: a module is not there, is served as it is, or has other sizes; or the rank exceeds `max_rank`.
        """
        where = str(self.directory / WEIGHTS_FILE)
        places = projection_places(config)
        for module, delta in self.modules.items():
            if module not in places:
                reason = why_absent(module, config)
                raise UserError(f"the adapter changes '{module}'", where=where, remedy=reason)
            place = places[module]
            if (delta.inputs, delta.outputs) != (place.inputs, place.outputs):
                raise UserError(
                    f"the adapter's '{module}' maps {delta.inputs} to {delta.outputs} elements and the model's "
                    f"{place.inputs} to {place.outputs}",
                    where=where,
                    remedy="use the model that it was trained on",
                )
            if delta.rank > max_rank:
                raise UserError(
                    f"the adapter's '{module}' has rank {delta.rank}, more than {max_rank}",
                    where=where,
                    remedy="allow larger ranks",
                )


def tensor_names(module: str) -> tuple[str, str]:
    """The names of A and B of `module` in the file."""
    return f"{_PREFIX}{module}{_A}", f"{_PREFIX}{module}{_B}"


def fingerprint_of(directory: Path) -> str:
    """Of the names, sizes and times of both files in `directory`, in hexadecimal.

    Raises:
        UserError: one of them is not there, or cannot be read.
    """
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        try:
            status = (directory / name).stat()
        except FileNotFoundError as error:
            raise _missing(directory, name) from error
        except OSError as error:
            raise UserError(f"{directory / name} cannot be read", remedy=error.strerror or str(error)) from error
        digest.update(f"{name}:{status.st_size}:{status.st_mtime_ns};".encode())
    return digest.hexdigest()


def _missing(directory: Path, name: str) -> UserError:
    if name == WEIGHTS_FILE and (directory / _PICKLE).is_file():
        return UserError(
            f"the adapter {_PICKLE} is a pickle, which runs whatever code it holds when it is read",
            where=str(directory),
            remedy="save it as safetensors with PEFT where you trust it",
        )
    return UserError(f"folder {directory} holds no adapter", remedy=f"expected {CONFIG_FILE} and {WEIGHTS_FILE}")


def _pairs(tensors: Mapping[str, TensorEntry], path: Path) -> dict[str, tuple[TensorEntry, TensorEntry]]:
    """A and B of each module."""
    halves: dict[str, dict[str, TensorEntry]] = {}
    for name, entry in tensors.items():
        module, half = _divide(name, path)
        if entry.dtype not in _DTYPES:
            raise CorruptArtefact(f"tensor '{name}' has dtype {entry.dtype}, which no adapter has", where=str(path))
        if len(entry.shape) != 2 or 0 in entry.shape:
            raise CorruptArtefact(f"tensor '{name}' is {entry.shape} and no matrix", where=str(path))
        halves.setdefault(module, {})[half] = entry
    if not halves:
        raise CorruptArtefact("the adapter has no tensors", where=str(path))
    for module, found in halves.items():
        if len(found) < 2:
            there, lacking = (_A, _B) if _A in found else (_B, _A)
            raise CorruptArtefact(f"'{module}' has {there[1:]} without {lacking[1:]}", where=str(path))
    return {module: (found[_A], found[_B]) for module, found in halves.items()}


def _divide(name: str, path: Path) -> tuple[str, str]:
    """The module and the half that a tensor's name says."""
    for part, reason in _VARIANTS.items():
        if part in name:
            raise UserError(f"the adapter has '{name}'", where=str(path), remedy=reason)
    for half in (_A, _B):
        if name.startswith(_PREFIX) and name.endswith(half):
            return name.removeprefix(_PREFIX).removesuffix(half), half
    raise UserError(f"tensor '{name}' is no part of a LoRA adapter", where=str(path), remedy="save it with PEFT")


def _delta(module: str, a: TensorEntry, b: TensorEntry, config: PeftConfig, path: Path) -> ModuleDelta:
    rank, inputs = a.shape
    outputs, other = b.shape
    if not config.covers(module):
        raise CorruptArtefact(f"'{module}' has tensors in {path.name} and is no target", where=config.where)
    if not rank == other == config.rank_of(module):
        raise CorruptArtefact(
            f"'{module}' has matrices of rank {rank} and {other}, and {CONFIG_FILE} says {config.rank_of(module)}",
            where=str(path),
        )
    return ModuleDelta(rank, inputs, outputs, config.scaling_of(module))
