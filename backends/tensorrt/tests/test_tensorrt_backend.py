"""What the backend refuses, and why: no package, no GPU, another GPU, another version, another precision, damage."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fulmen_backend_tensorrt import devices, plugin, products
from fulmen_backend_tensorrt.artefact import EngineManifest, open_artefact
from fulmen_backend_tensorrt.backend import TensorRTBackend
from fulmen_backend_tensorrt.build import check_capabilities
from fulmen_backend_tensorrt.devices import Device, Devices
from fulmen_backend_tensorrt.engine_executor import check_device, import_bindings
from fulmen_backend_tensorrt.runner import EngineRunner
from fulmen_backend_tensorrt.twin_executor import TwinExecutor
from fulmen_core.backend import TrainPlan
from fulmen_core.errors import CapabilityError, CorruptArtefact
from fulmen_core.model.checkpoint import load_model
from fulmen_core.registry import Registry
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.exporter.artefacts import change_manifest, flip, manifest_of, truncate
from fulmen_testing.exporter.exported import Exported
from fulmen_testing.models import save_random_model

from .conftest import LIGHTNING, write

LIMITS = EngineLimits(max_sequences=2, max_context=32, max_step_tokens=16, threads=1)
ADA = Devices((Device("NVIDIA L4", "8.9"),))


@pytest.fixture
def copied(lightning: Exported, tmp_path: Path) -> Path:
    return shutil.copytree(lightning.artefact, tmp_path / "artefact")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("graphs")
    save_random_model(LIGHTNING, 0, root / "model")
    write(root / "model", root / "artefact")
    return root / "artefact"


def load(directory: Path) -> None:
    TensorRTBackend().load_runner(directory, LIMITS, "float16").close()


def altered(directory: Path, **changes: object) -> EngineManifest:
    manifest, _ = open_artefact(directory)
    return manifest.model_copy(update=changes)


def test_the_registry_offers_the_backend_and_both_exporters() -> None:
    registry = Registry.of("fulmen_backend_tensorrt.plugin")
    [info] = registry.backend_infos()
    assert info.name == "tensorrt"
    assert {info.name for info in plugin.fulmen_exporters()} == {"tensorrt-rtx", "tensorrt"}


def test_without_any_tensorrt_the_probe_names_both_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products.Product, "installed", lambda self: None)
    found = plugin.probe_runtime()
    assert not found.ok
    assert "pip install 'fulmen-backend-tensorrt[rtx]' for TensorRT-RTX" in found.reason
    assert "pip install 'fulmen-backend-tensorrt[datacenter]' for TensorRT" in found.reason


def test_without_a_gpu_the_probe_repeats_what_cuda_says(lightning: Exported) -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    if devices.find_devices().devices:
        pytest.skip("there is a GPU")
    found = plugin.probe_runtime()
    assert not found.ok
    assert found.reason.startswith("there is no GPU that CUDA can use: cudaError ")
    assert found.versions["tensorrt-rtx"]
    with pytest.raises(CapabilityError, match="cannot be run: there is no GPU that CUDA can use: cudaError"):
        load(lightning.artefact)


def test_without_cuda_bindings_the_probe_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)  # an import of it fails
    assert "cuda-bindings is not installed" in devices.find_devices().reason


def test_the_exporter_that_needs_a_gpu_says_so_and_the_other_does_not() -> None:
    if devices.find_devices().devices:
        pytest.skip("there is a GPU")
    found = plugin.probe_export(replace(products.PRODUCTS["tensorrt"], distribution="onnx"))
    assert not found.ok
    assert "TensorRT builds on the GPU it builds for, and " in found.reason
    assert plugin.probe_export(replace(products.PRODUCTS["tensorrt-rtx"], distribution="onnx")).ok


def test_another_gpu_than_was_built_for_is_refused_with_the_option_that_mends_it(graphs: Path) -> None:
    for built, fits in ((("8.9",), True), (("8.9", "12.0"), True), (("12.0",), False), ((), True)):
        manifest = altered(graphs, compute_capabilities=built)
        if fits:
            check_device(graphs, manifest, ADA)
            continue
        with pytest.raises(CapabilityError, match=r"for compute capability 12\.0, and NVIDIA L4 has 8\.9") as caught:
            check_device(graphs, manifest, ADA)
        assert "--compute-capability 8.9" in str(caught.value)


def test_engines_for_no_stated_device_are_refused_where_tensorrt_refuses_them(graphs: Path) -> None:
    portable = altered(graphs, compute_capabilities=())
    check_device(graphs, portable, ADA)
    remedies = {
        ("NVIDIA T4", "7.5"): "export the model again with --compute-capability 7.5",
        ("NVIDIA H200", "9.0"): "TensorRT-RTX builds nothing for 9.0: export --to tensorrt there",
    }
    for (name, capability), remedy in remedies.items():
        words = rf"for compute capability 8\.0 .* and 12\.1, and {name} has {capability}: {remedy}"
        with pytest.raises(CapabilityError, match=words):
            check_device(graphs, portable, Devices((Device(name, capability),)))


def test_engines_of_another_version_are_refused(lightning: Exported) -> None:
    import_bindings(lightning.artefact, altered(lightning.artefact))
    with pytest.raises(CapabilityError, match=r"built by TensorRT-RTX 1\.6\.0\.1, and .* is installed: pip install"):
        import_bindings(lightning.artefact, altered(lightning.artefact, tensorrt_version="1.6.0.1"))


def test_engines_of_a_product_that_is_not_installed_are_refused(graphs: Path) -> None:
    if products.PRODUCTS["tensorrt"].installed():
        pytest.skip("TensorRT is installed")
    with pytest.raises(CapabilityError, match=r"of TensorRT, which is not installed: pip install .*\[datacenter\]"):
        import_bindings(graphs, altered(graphs, format="tensorrt"))


@pytest.mark.parametrize(
    ("wanted", "present", "sentence"),
    [((), (), "there is none here"), (("9.0",), ("8.9",), "none here has compute capability 9.0")],
)
def test_tensorrt_itself_builds_for_the_gpu_that_is_there(
    wanted: tuple[str, ...], present: tuple[str, ...], sentence: str
) -> None:
    datacenter = products.PRODUCTS["tensorrt"]
    check_capabilities(datacenter, None, ("9.0",), ("9.0",))
    check_capabilities(datacenter, None, (), ("9.0",))
    with pytest.raises(CapabilityError, match=sentence):
        check_capabilities(datacenter, None, wanted, present)


def test_the_precision_is_the_artefacts(lightning: Exported) -> None:
    backend = TensorRTBackend()
    with pytest.raises(CapabilityError, match="computes in float16, not in float32: serve it with --dtype float16"):
        backend.load_runner(lightning.artefact, LIMITS)
    with pytest.raises(CapabilityError, match="neither quantises nor chooses"):
        backend.load_runner(lightning.artefact, LIMITS, "float16", quantize="int8")
    with pytest.raises(CapabilityError, match="neither quantises nor chooses"):
        backend.load_runner(lightning.artefact, LIMITS, "float16", kv_dtype="int8")
    with pytest.raises(CapabilityError, match="serves no adapters"):
        backend.load_runner(lightning.artefact, replace(LIMITS, adapters=1), "float16")
    with pytest.raises(CapabilityError, match="does not train"):
        backend.prepare_training(load_model(lightning.model), TrainPlan())


@pytest.mark.parametrize("pattern", ["decode-*.engine", "prefill.onnx", "weights.data", "experts.data", "config.json"])
@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
def test_a_damaged_file_is_named(copied: Path, pattern: str, harm: Callable[[Path], None]) -> None:
    (path,) = copied.glob(pattern)
    harm(path)
    with pytest.raises(CorruptArtefact, match=path.name):
        load(copied)


def test_an_engine_that_the_manifest_does_not_list_is_refused(copied: Path) -> None:
    change_manifest(copied, engines=manifest_of(copied)["engines"] | {"decode": "other.engine"})
    with pytest.raises(CorruptArtefact, match=r"does not list other\.engine"):
        load(copied)


def test_a_checkpoint_and_another_format_are_refused(lightning: Exported, copied: Path) -> None:
    from fulmen_core.errors import UserError

    with pytest.raises(UserError, match="is no artefact"):
        load(lightning.model)
    change_manifest(copied, format="onnx")
    with pytest.raises(CapabilityError, match="the format 'onnx'"):
        load(copied)


def test_what_the_graphs_cannot_give_is_refused(graphs: Path, tmp_path: Path) -> None:
    runner = EngineRunner(graphs, LIMITS, TwinExecutor)
    with pytest.raises(ValueError, match="no adapter is loaded"):
        runner.step([SequenceStep(0, 0, [1, 2], adapter=1)])
    with pytest.raises(ValueError, match="last token alone"):
        runner.step([SequenceStep(0, 0, [1, 2], wanted=2)])
    with pytest.raises(CapabilityError, match="no hidden states"):
        runner.hidden([SequenceStep(0, 0, [1])])
    with pytest.raises(CapabilityError, match="serves no adapters"):
        runner.load_adapter(tmp_path)
    with pytest.raises(ValueError, match="no pages"):
        runner.copy_page(0, 1)
    runner.unload_adapter(1)
    runner.close()


def test_the_context_is_cut_to_what_was_built_for(graphs: Path) -> None:
    assert EngineRunner(graphs, EngineLimits(max_context=10_000), TwinExecutor).limits.max_context == 160


def test_what_serving_takes_imports_no_torch() -> None:
    program = """
import sys
sys.modules["torch"] = None  # an import of it fails
from fulmen_core.registry import Registry
import fulmen_backend_tensorrt.backend, fulmen_backend_tensorrt.engine_executor, fulmen_backend_tensorrt.runner
print([info.name for info in Registry.of("fulmen_backend_tensorrt.plugin").backend_infos()])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['tensorrt']", done.stderr
