"""The manifest of an artefact: what is in the folder, from which model, and how its caches are numbered. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fulmen_core.artefacts import MANIFEST_FILE, is_artefact
from fulmen_core.backend import Dtype, Quantization
from fulmen_core.errors import CapabilityError, CorruptArtefact, UserError
from fulmen_core.files import hash_file, read_json

if TYPE_CHECKING:
    from fulmen_core.model.layer_plan import LayerPlan


class TensorInfo(BaseModel):
    """An input or output of the graph. Dimensions are numbers, or names where they may vary from call to call."""

    model_config = ConfigDict(frozen=True)

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class LayerInfo(BaseModel):
    """A layer of the plan: see `fulmen_core.model.layer_plan.LayerSpec`."""

    model_config = ConfigDict(frozen=True)

    window: int | None
    kv_source: int
    cache: int
    ffn: str

    @classmethod
    def of(cls, plan: LayerPlan) -> tuple[LayerInfo, ...]:
        """One for each layer, in order."""
        return tuple(cls(window=x.window, kv_source=x.kv_source, cache=x.cache, ffn=x.ffn) for x in plan)


class Manifest(BaseModel):
    """What `fulmen_artefact.json` says. An exporter that has more to say makes a subclass.

    Attributes:
        format: of the exporter that wrote it; a backend with it in `Capabilities.formats` loads the folder.
        model_hash: SHA-256 of the model directory that was exported (`fulmen_core.files.hash_tree`).
        files: name to SHA-256, of every other file of the artefact.
        dtype: of caches, arithmetic and weights that are not quantised.
        quantize: of the others; None: all are of `dtype`.
        inputs, outputs: of the graph.
        layer_plan: of the model, so that an artefact is not served with another's config.
        tool_versions: of what wrote it.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    format: str
    model_hash: str
    dtype: Dtype
    quantize: Quantization | None = None
    files: Mapping[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layer_plan: tuple[LayerInfo, ...]
    tool_versions: Mapping[str, str]

    def is_of(self, plan: LayerPlan) -> bool:
        """Whether the artefact was exported from a model with this plan."""
        return self.layer_plan == LayerInfo.of(plan)


AnyManifest = TypeVar("AnyManifest", bound=Manifest)


def cache_names(prefix: str, count: int) -> list[tuple[str, str]]:
    """The tensor names of the caches, key and value: those that onnxruntime-genai and optimum use."""
    return [(f"{prefix}.{number}.key", f"{prefix}.{number}.value") for number in range(count)]


def hash_files(directory: Path) -> dict[str, str]:
    """Name to SHA-256 of every file in a folder that is being made into an artefact."""
    return {file.name: hash_file(file) for file in sorted(directory.iterdir())}


def artefact_format(directory: Path) -> str:
    """The format that the manifest in `directory` names.

    Raises:
        UserError: there is no such folder, or it holds no artefact.
        CorruptArtefact: the manifest is no JSON object with a format.
    """
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}", remedy="check the path")
    if not is_artefact(directory):
        raise UserError(f"{directory} is no artefact", remedy="name a folder that `fulmen export` wrote")
    document = read_json(directory / MANIFEST_FILE, "artefact manifest")
    found = document.get("format") if isinstance(document, dict) else None
    if not isinstance(found, str):
        raise CorruptArtefact("the artefact manifest is wrong at 'format'", where=str(directory / MANIFEST_FILE))
    return found


def read_manifest(directory: Path, format: str, kind: type[AnyManifest], required: Sequence[str] = ()) -> AnyManifest:
    """Read the manifest in `directory` and check every file that it names.

    Args:
        directory: of the artefact.
        format: that the caller loads.
        kind: `Manifest`, or the exporter's own.
        required: names of files without which it is no artefact of this format.

    Raises:
        UserError: there is no such folder.
        CapabilityError: it holds no artefact, or one of another format.
        CorruptArtefact: the manifest or a file is missing, truncated or altered.
    """
    if directory.is_dir() and not is_artefact(directory):
        raise CapabilityError(
            f"{directory} is no artefact of the format '{format}'",
            remedy=f"run `fulmen export --to {format} --model {directory} --out DIR` and load DIR",
        )
    found = artefact_format(directory)
    if found != format:
        raise CapabilityError(f"the artefact in {directory} has the format '{found}'", remedy=f"'{format}' is loaded")
    path = directory / MANIFEST_FILE
    try:
        manifest = kind.model_validate(read_json(path, "artefact manifest"))
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise CorruptArtefact(f"the artefact manifest is wrong at '{place}'", where=str(path)) from error
    _check_files(directory, manifest.files, required)
    return manifest


def _check_files(directory: Path, files: Mapping[str, str], required: Sequence[str]) -> None:
    where, remedy = str(directory), "export the model again"
    for name in required:
        if name not in files:
            raise CorruptArtefact(f"the artefact manifest does not list {name}", where=where, remedy=remedy)
    for name, expected in files.items():
        if Path(name).name != name:
            raise CorruptArtefact(f"the artefact manifest points outside its folder, to '{name}'", where=where)
        if not (directory / name).is_file():
            raise CorruptArtefact(f"the artefact's file {name} is missing", where=where, remedy=remedy)
        if hash_file(directory / name) != expected:
            raise CorruptArtefact(f"the artefact's file {name} is truncated or altered", where=where, remedy=remedy)
