"""What must hold of an artefact whoever wrote it: it is whole or refused, says what it is, is served without PyTorch,
and replaces nothing but an artefact. A class of tests, for the tests of a backend that has an exporter.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.artefacts import MANIFEST_FILE
from fulmen_core.backend import Backend, Exporter, TrainPlan
from fulmen_core.errors import CapabilityError, CorruptArtefact, UserError
from fulmen_core.export.options import ExportOptions
from fulmen_core.files import hash_file, hash_tree
from fulmen_core.model.checkpoint import load_model
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.exporter.exported import Exported
from fulmen_testing.models import save_random_model

LIMITS = EngineLimits(max_sequences=2, max_context=32, max_step_tokens=16, threads=1)


def manifest_of(artefact: Path) -> dict[str, Any]:
    """Read the manifest as it stands."""
    document: dict[str, Any] = json.loads((artefact / MANIFEST_FILE).read_text())
    return document


def change_manifest(artefact: Path, **changes: object) -> None:
    """Write other values into the manifest."""
    (artefact / MANIFEST_FILE).write_text(json.dumps(manifest_of(artefact) | changes))


def sign(artefact: Path, name: str) -> None:
    """Let the manifest say that a changed file is what it should be."""
    change_manifest(artefact, files=manifest_of(artefact)["files"] | {name: hash_file(artefact / name)})


def truncate(path: Path) -> None:
    """Leave out the last hundred bytes."""
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


class ArtefactClaims:
    """Subclass it as ``TestNAME`` beside fixtures `lightning`, an artefact in float32, and `exported`, some of them.

    Attributes:
        module: of the plugin.
        backend_name: in the registry.
        format: the exporter's name, and what the manifest says.
        graph: the file that a runtime loads.
        files: that are in every artefact.
        tools: whose versions the manifest tells.
        runtime: what it is called where it refuses a graph.
    """

    module: str
    backend_name: str
    format: str
    graph: str
    files: frozenset[str]
    tools: frozenset[str]
    runtime: str

    @property
    def backend(self) -> Backend:
        """The backend, as the registry gives it."""
        return Registry.of(self.module).backend(self.backend_name)

    @property
    def exporter(self) -> Exporter:
        """The exporter, as the registry gives it."""
        return Registry.of(self.module).exporter(self.format)

    def load(self, artefact: Path) -> None:
        """Serve an artefact for a moment."""
        self.backend.load_runner(artefact, LIMITS).close()

    @pytest.fixture
    def copied(self, lightning: Exported, tmp_path: Path) -> Path:
        """An artefact that may be harmed."""
        return shutil.copytree(lightning.artefact, tmp_path / "artefact")

    def test_the_registry_offers_the_backend_and_the_exporter(self) -> None:
        """Both are found by name, and the backend is available"""
        assert self.backend.name == self.backend_name
        assert self.exporter.name == self.format
        [record] = Registry.of(self.module).backend_records()
        assert record.state == "active"

    def test_the_manifest_names_every_file_and_the_model(self, exported: Exported) -> None:
        """The manifest has the hash of every file and of the model, and the versions of what made them"""
        manifest = manifest_of(exported.artefact)
        names = {file.name for file in exported.artefact.iterdir()} - {MANIFEST_FILE}
        assert manifest["files"] == {name: hash_file(exported.artefact / name) for name in names}
        assert names >= {self.graph, "config.json", *self.files}
        assert (manifest["format"], manifest["dtype"]) == (self.format, "float32")
        assert manifest["model_hash"] == hash_tree(exported.model)
        assert set(manifest["tool_versions"]) >= {"torch", *self.tools}

    @pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
    def test_a_damaged_file_is_named(self, lightning: Exported, tmp_path: Path, harm: Callable[[Path], None]) -> None:
        """Whichever file is cut, altered or gone, the refusal names it"""
        for number, name in enumerate(manifest_of(lightning.artefact)["files"]):
            copied = shutil.copytree(lightning.artefact, tmp_path / str(number))
            harm(copied / name)
            with pytest.raises(CorruptArtefact, match=name):
                self.load(copied)

    def test_a_truncated_manifest_is_refused(self, copied: Path) -> None:
        """A manifest that is no JSON is refused"""
        truncate(copied / MANIFEST_FILE)
        with pytest.raises(CorruptArtefact, match="artefact manifest is not valid JSON"):
            self.load(copied)

    def test_a_manifest_with_a_wrong_value_is_refused(self, copied: Path) -> None:
        """A wrong value is refused with the place where it stands"""
        change_manifest(copied, layer_plan=[{"window": "wide"}])
        with pytest.raises(CorruptArtefact, match=r"wrong at 'layer_plan\.0\.window'"):
            self.load(copied)

    def test_a_manifest_cannot_point_outside_its_folder(self, copied: Path) -> None:
        """No file outside the artefact is read because a manifest names it"""
        change_manifest(copied, files=manifest_of(copied)["files"] | {"../model/config.json": "0"})
        with pytest.raises(CorruptArtefact, match="outside its folder"):
            self.load(copied)

    def test_a_graph_that_the_runtime_cannot_load_is_refused(self, copied: Path) -> None:
        """A graph that only looks whole is refused in words"""
        (copied / self.graph).write_bytes(b"no graph")
        sign(copied, self.graph)
        with pytest.raises(CorruptArtefact, match=f"{self.runtime} cannot load the graph"):
            self.load(copied)

    def test_an_artefact_of_another_plan_is_refused(self, lightning: Exported, tmp_path: Path, copied: Path) -> None:
        """A config that plans other layers than the graph has is refused"""
        other = save_random_model(lightning.config.model_copy(update={"layer_pattern": "FS"}), 0, tmp_path / "other")
        shutil.copyfile(other / "config.json", copied / "config.json")
        sign(copied, "config.json")
        with pytest.raises(CorruptArtefact, match="different layers"):
            self.load(copied)

    def test_another_format_is_refused(self, copied: Path) -> None:
        """An artefact of another exporter is refused by its name"""
        change_manifest(copied, format="tensorrt-rtx")
        with pytest.raises(CapabilityError, match="'tensorrt-rtx'"):
            self.load(copied)

    def test_a_checkpoint_is_refused_with_the_command_that_exports_it(self, lightning: Exported) -> None:
        """What is no artefact is refused with the command that makes one of it"""
        with pytest.raises(CapabilityError, match=f"fulmen export --to {self.format}"):
            self.load(lightning.model)

    def test_it_trains_nothing_and_says_so(self, lightning: Exported) -> None:
        """A backend of artefacts lists no training and refuses it"""
        assert not self.backend.capabilities().train
        with pytest.raises(CapabilityError, match="does not train"):
            self.backend.prepare_training(load_model(lightning.model), TrainPlan())

    def test_adapters_are_refused_and_never_left_out_in_silence(self, lightning: Exported, tmp_path: Path) -> None:
        """Where no adapters are listed, none is loaded and none is served"""
        backend = self.backend
        assert not backend.capabilities().adapters
        with pytest.raises(CapabilityError, match="serves no adapters"):
            backend.load_runner(lightning.artefact, replace(LIMITS, adapters=1))
        runner = backend.load_runner(lightning.artefact, LIMITS)
        with pytest.raises(CapabilityError, match="serves no adapters"):
            runner.load_adapter(tmp_path)
        with pytest.raises(ValueError, match="no adapter is loaded"):
            runner.step([SequenceStep(0, 0, [1, 2], adapter=1)])
        runner.unload_adapter(1)
        runner.close()

    def test_an_export_replaces_nothing_but_an_artefact(self, lightning: Exported, tmp_path: Path) -> None:
        """A folder of something else is left as it is"""
        (tmp_path / "thesis.tex").write_text("years of work")
        for out in (tmp_path, lightning.model):
            with pytest.raises(UserError, match="not empty"):
                self.exporter.export(lightning.model, out, ExportOptions())
        assert (tmp_path / "thesis.tex").read_text() == "years of work"

    def test_serving_imports_no_torch(self, lightning: Exported) -> None:
        """The artefact is served where PyTorch cannot be imported"""
        program = f"""
import sys
sys.modules["torch"] = None  # an import of it fails
from pathlib import Path
from fulmen_core.generation import generate
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits
from fulmen_core.sampling import SamplingParams
backend = Registry.of({self.module!r}).backend({self.backend_name!r})
runner = backend.load_runner(Path({str(lightning.artefact)!r}), EngineLimits(2, 64, 32, threads=1))
answers = generate(runner, [[1, 2, 3], [4]], SamplingParams(temperature=0, max_tokens=5))
print([len(answer) for answer in answers])
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "[5, 5]", done.stderr
