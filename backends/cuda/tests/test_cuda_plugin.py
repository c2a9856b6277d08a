"""The probe says exactly what is missing. A driver of a few lines of C, compiled here, stands for those we have not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fulmen_backend_cuda import backend as backend_module
from fulmen_backend_cuda import plugin
from fulmen_backend_cuda.backend import CudaBackend
from fulmen_backend_cuda.driver import DriverUnavailable, ask_driver
from fulmen_backend_cuda.support import support_of
from fulmen_core.backend import TrainPlan
from fulmen_core.errors import CapabilityError
from fulmen_core.registry import Registry

DRIVER = r"""
#include <string.h>
int cuInit(unsigned f) { return INIT; }
int cuDriverGetVersion(int *v) { *v = 13010; return 0; }
int cuDeviceGetCount(int *n) { *n = COUNT; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, "Test GPU", n); return 0; }
int cuDeviceTotalMem_v2(size_t *m, int d) { *m = (size_t)80 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? MAJOR : a == 76 ? MINOR : a == 16 ? 132 : -1; return 0;}
int cuGetErrorString(int e, const char **s) { *s = "no CUDA-capable device is detected"; return e != 100; }
"""

MakeDriver = Callable[..., str]


@pytest.fixture
def make_driver(tmp_path: Path) -> MakeDriver:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler to make a driver with")

    def make(major: int = 9, minor: int = 0, count: int = 1, init: int = 0) -> str:
        source, library = tmp_path / "driver.c", tmp_path / f"libcuda-{major}-{minor}-{count}-{init}.so"
        source.write_text(DRIVER)
        values = {"MAJOR": major, "MINOR": minor, "COUNT": count, "INIT": init}
        macros = [f"-D{name}={value}" for name, value in values.items()]
        subprocess.run([compiler, "-shared", "-fPIC", "-w", *macros, source, "-o", library], check=True)
        return str(library)

    return make


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyTorch that is built for CUDA, as far as the probe looks."""
    monkeypatch.setattr(plugin, "built_for_cuda", lambda: True)


def test_a_pytorch_without_cuda_is_named() -> None:
    if plugin.built_for_cuda():
        pytest.skip("this PyTorch is built for CUDA")
    found = plugin.probe()
    assert not found.ok
    assert found.reason.startswith(f"PyTorch {found.versions['torch']} is built without CUDA: install")


@pytest.mark.usefixtures("built")
def test_a_missing_driver_is_named() -> None:
    found = plugin.probe("libcuda-of-nobody.so.1")
    assert not found.ok
    assert found.reason.startswith("there is no NVIDIA driver (libcuda-of-nobody.so.1: cannot open shared object file")


@pytest.mark.usefixtures("built")
def test_a_driver_that_does_not_start_is_quoted(make_driver: MakeDriver) -> None:
    assert "cuInit: error 100, no CUDA-capable device is detected" in plugin.probe(make_driver(init=100)).reason
    assert "cuInit: error 999, unknown error" in plugin.probe(make_driver(init=999)).reason


@pytest.mark.usefixtures("built")
def test_a_driver_without_gpus_is_told(make_driver: MakeDriver) -> None:
    assert plugin.probe(make_driver(count=0)).reason.startswith("the NVIDIA driver finds no GPU: see what nvidia-smi")


@pytest.mark.usefixtures("built")
def test_a_gpu_that_is_too_old_is_named_with_its_compute_capability(make_driver: MakeDriver) -> None:
    found = plugin.probe(make_driver(7, 5))
    assert not found.ok
    assert found.reason == "Test GPU has compute capability 7.5, and bfloat16 and FlashAttention need 8.0"
    assert found.devices == ("cuda:0 Test GPU, compute capability 7.5, 80 GiB",)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("capability", "fp8"), [((8, 0), False), ((8, 9), False), ((9, 0), True), ((10, 3), True), ((12, 0), False)]
)
def test_a_gpu_is_told_with_what_it_multiplies(make_driver: MakeDriver, capability: tuple[int, int], fp8: bool) -> None:
    found = plugin.probe(make_driver(*capability, count=2))
    assert found.ok
    assert len(found.devices) == 2
    assert found.versions["driver"] == "CUDA 13.1"
    assert (found.versions["8-bit floats"] == "yes") == fp8
    if not fp8:
        assert found.versions["8-bit floats"].endswith("grouped products of 8-bit floats need 9.0 or 10.x")
    assert ("fp8" in capabilities_of(make_driver(*capability)).quantizations) == fp8


def capabilities_of(library: str) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend_module, "ask_driver", lambda: ask_driver(library))
        return CudaBackend().capabilities()


def test_the_number_of_multiprocessors_is_the_drivers(make_driver: MakeDriver) -> None:
    gpu = ask_driver(make_driver(8, 6)).gpus[0]
    assert (gpu.multiprocessors, gpu.capability, gpu.memory_bytes) == (132, (8, 6), 80 << 30)
    assert support_of(gpu.capability, gpu.multiprocessors).multiprocessors == 132


def test_where_fp8_is_missing_it_is_refused_with_the_reason(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = make_driver(8, 6)
    monkeypatch.setattr(backend_module, "ask_driver", lambda: ask_driver(library))
    backend = CudaBackend()
    assert backend.capabilities().train_quantizations == ()
    words = "train experts in fp8, as Test GPU has compute capability 8.6, and grouped products of 8-bit floats need"
    with pytest.raises(CapabilityError, match=words):
        backend.prepare_training(None, TrainPlan(experts="fp8"))  # type: ignore[arg-type]


def test_without_a_gpu_the_backend_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> None:
        raise DriverUnavailable("there is no NVIDIA driver")

    monkeypatch.setattr(backend_module, "ask_driver", nothing)
    with pytest.raises(CapabilityError, match="the cuda backend cannot be used: there is no NVIDIA driver"):
        CudaBackend()


def test_the_registry_tells_the_reason_and_prefers_a_gpu_where_there_is_one() -> None:
    (record,) = Registry.of(plugin).backend_records()
    assert record.name == "cuda"
    assert record.state in ("active", "unavailable")
    assert record.state == "active" or record.reason == plugin.probe().reason
    assert plugin.fulmen_backends()[0].priority > 0


def test_registering_and_probing_import_no_torch() -> None:
    code = (
        "import sys, fulmen_backend_cuda.plugin as p; p.probe(); p.fulmen_backends(); "
        "sys.exit('torch' in sys.modules or 'triton' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_the_real_driver_understands_the_calls() -> None:
    found = ask_driver().gpus[0]
    assert found.name
    assert found.multiprocessors > 0
    assert found.memory_bytes > 1 << 30
