"""The manifest of an artefact: what is in the folder, from which model, and how its caches are numbered. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fulmen_core.artefacts import MANIFEST_FILE, is_artefact
from fulmen_core.errors import CapabilityError, CorruptArtefact, UserError
from fulmen_core.files import hash_file, read_json
from fulmen_core.model.layer_plan import LayerPlan

GRAPH_FILE = "model.onnx"
FORMAT = "onnx"


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
    """What `fulmen_artefact.json` says.

    Attributes:
        format: always "onnx".
        model_hash: SHA-256 of the model directory that was exported (`fulmen_core.files.hash_tree`).
        files: name to SHA-256, of every other file of the artefact.
        dtype: of weights, caches and arithmetic.
        tool_versions: of what wrote it.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    format: str
    model_hash: str
    dtype: str
    files: Mapping[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layer_plan: tuple[LayerInfo, ...]
    tool_versions: Mapping[str, str]


def cache_names(prefix: str, count: int) -> list[tuple[str, str]]:
    """The tensor names of the caches, key and value: those that onnxruntime-genai and optimum use."""
    return [(f"{prefix}.{number}.key", f"{prefix}.{number}.value") for number in range(count)]


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest in `directory` and check every file that it names.

    Raises:
        UserError: there is no such folder.
        CapabilityError: it holds no artefact, or one of another format.
        CorruptArtefact: the manifest or a file is missing, truncated or altered.
    """
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}", remedy="check the path")
    if not is_artefact(directory):
        raise CapabilityError(
            f"{directory} is no ONNX artefact, and the onnxruntime backend loads nothing else",
            remedy=f"run `fulmen export --to onnx --model {directory} --out DIR` and load DIR",
        )
    path = directory / MANIFEST_FILE
    document = read_json(path, "artefact manifest")
    found = document.get("format") if isinstance(document, dict) else None
    if isinstance(found, str) and found != FORMAT:
        raise CapabilityError(
            f"the artefact in {directory} has the format '{found}'", remedy=f"this backend loads '{FORMAT}'"
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CorruptArtefact(f"the artefact manifest is wrong at '{place}'", where=str(path)) from error
    _check_files(directory, manifest.files)
    return manifest


def _check_files(directory: Path, files: Mapping[str, str]) -> None:
    remedy = "export the model again"
    if GRAPH_FILE not in files:
        raise CorruptArtefact(f"the artefact manifest does not list {GRAPH_FILE}", where=str(directory), remedy=remedy)
    for name, expected in files.items():
        if Path(name).name != name:
            raise CorruptArtefact(f"the artefact manifest points outside its folder, to '{name}'", where=str(directory))
        if not (directory / name).is_file():
            raise CorruptArtefact(f"the artefact's file {name} is missing", where=str(directory), remedy=remedy)
        if hash_file(directory / name) != expected:
            raise CorruptArtefact(
                f"the artefact's file {name} is truncated or altered", where=str(directory), remedy=remedy
            )


def same_plan(manifest: Manifest, plan: LayerPlan) -> bool:
    """Whether the artefact was exported from a model with this plan."""
    return tuple(manifest.layer_plan) == LayerInfo.of(plan)
