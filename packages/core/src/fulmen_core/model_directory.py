"""What a model directory holds and which backend can serve it, found out before anything large is read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.errors import CapabilityError, CorruptArtefact, PluginError, UserError
from fulmen_core.files import read_json

if TYPE_CHECKING:
    from fulmen_core.backend import Backend, Dtype
    from fulmen_core.registry import Registry

_CHECKPOINT_FILES = ("model.safetensors", "model.safetensors.index.json")
_FINGERPRINTED = 1 << 20  # bytes at each end of a file; training changes nearly every byte of the weights


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A directory that a backend may be able to serve.

    Attributes:
        path: the directory.
        format: "checkpoint", or what its `fulmen_artefact.json` says, e.g. "onnx".
        dtype: what an artefact was exported in; "float32" of a checkpoint, which is converted on loading.
        max_context: the longest sequence it was made for, in tokens.
        vocab_size: rows of its embedding.
        generation: its generation_config.json, or nothing.
    """

    path: Path
    format: str
    dtype: str
    max_context: int
    vocab_size: int
    generation: dict[str, Any]

    @classmethod
    def inspect(cls, path: Path) -> ModelDirectory:
        """Read the small files of a model directory.

        Raises:
            UserError: there is no such directory, or it holds no model.
            CorruptArtefact: a file is not what its name says.
        """
        if not path.is_dir():
            raise UserError(
                f"the model directory {path} does not exist" if not path.exists() else f"{path} is not a directory",
                remedy="give the directory that holds config.json and the weights",
            )
        config = _read_object(path / "config.json", "model configuration")
        generation = path / "generation_config.json"
        return cls(
            path,
            *_format_of(path),
            _positive(config, "max_position_embeddings", path),
            _positive(config, "vocab_size", path),
            _read_object(generation, "generation configuration") if generation.exists() else {},
        )

    def dtype_on(self, backend: Backend) -> Dtype:
        """What a backend serves it in if nobody says: what it was exported in, float32 where the backend cannot."""
        for dtype in backend.capabilities().serve_dtypes:
            if dtype == self.dtype:
                return dtype
        return "float32"

    def stop_ids(self) -> frozenset[int]:
        """The ids that end an answer by its generation_config.json.

        Raises:
            UserError: they are no token ids.
        """
        given = self.generation.get("eos_token_id")
        ids = given if isinstance(given, list) else [] if given is None else [given]
        if not all(isinstance(token, int) for token in ids):
            raise self._bad("eos_token_id", given)
        return frozenset(ids)

    def default(self, key: str, otherwise: float) -> float:
        """A number of its generation_config.json, `otherwise` if it says nothing.

        Raises:
            UserError: it is no number.
        """
        value = self.generation.get(key)
        if value is None:
            return otherwise
        if not isinstance(value, int | float):
            raise self._bad(key, value)
        return float(value)

    def _bad(self, key: str, value: object) -> UserError:
        return UserError(f"{key} is {value!r}", where=str(self.path / "generation_config.json"), remedy="mend the file")

    def fingerprint(self, *others: str) -> str:
        """Return a short hash of the model's files (their ends, for speed) and of `others`: what answers depend on."""
        digest = hashlib.sha256(json.dumps(others).encode())
        for file in sorted(p for p in self.path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(self.path)}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(_FINGERPRINTED))
                stream.seek(max(0, file.stat().st_size - _FINGERPRINTED))
                digest.update(stream.read(_FINGERPRINTED))
        return f"fp_{digest.hexdigest()[:16]}"


def choose_backend(registry: Registry, name: str, format: str) -> Backend:
    """Return the backend called `name`; with "auto" the first, by priority, that is available and serves `format`.

    Raises:
        CapabilityError: the backend does not serve this format.
        PluginError: the named backend cannot be used, or with "auto" none can serve the format; says why each cannot.
    """
    if name != "auto":
        backend = registry.backend(name)
        if refusal := _refusal(backend, format):
            raise CapabilityError(refusal, remedy="leave --backend out, or name one that serves this format")
        return backend
    reasons = []
    for info in registry.backend_infos():
        try:
            backend = registry.backend(info.name)
        except PluginError as error:
            reasons.append(str(error))
            continue
        if not (refusal := _refusal(backend, format)):
            return backend
        reasons.append(refusal)
    raise PluginError(
        f"no installed backend serves a model of the format {format!r}"
        + (f" ({'; '.join(reasons)})" if reasons else ""),
        remedy="install the backend that serves it: 'pip install fulmen-backend-cpu' for checkpoints, "
        "'fulmen-backend-onnxruntime[cpu]' for onnx, 'fulmen-backend-openvino[cpu]', 'fulmen-backend-tensorrt[rtx]'",
    )


def _refusal(backend: Backend, format: str) -> str:
    capabilities = backend.capabilities()
    if not capabilities.serve:
        return f"the backend {backend.name} does not serve"
    if format not in capabilities.formats:
        return f"the backend {backend.name} serves {', '.join(capabilities.formats)}, not {format}"
    return ""


def _format_of(path: Path) -> tuple[str, str]:
    """The format, and the dtype."""
    if (path / MANIFEST_FILE).exists():
        manifest = _read_object(path / MANIFEST_FILE, "artefact manifest")
        format, dtype = manifest.get("format"), manifest.get("dtype", "float32")
        if not isinstance(format, str):
            raise UserError("there is no format", where=str(path / MANIFEST_FILE), remedy="export the model again")
        return format, str(dtype)
    if any((path / name).exists() for name in _CHECKPOINT_FILES):
        return "checkpoint", "float32"
    raise UserError(
        f"{path} holds no model: neither {' nor '.join((MANIFEST_FILE, *_CHECKPOINT_FILES))} is there",
        remedy="give a checkpoint or an exported artefact",
    )


def _read_object(path: Path, kind: str) -> dict[str, Any]:
    value = read_json(path, kind)
    if not isinstance(value, dict):
        raise CorruptArtefact(f"the {kind} is no JSON object", where=str(path))
    return value


def _positive(config: dict[str, Any], key: str, path: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{key} is {value!r}, not a positive number", where=str(path / "config.json"))
    return value
