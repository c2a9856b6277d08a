"""The execution provider is the user's choice or the CPU's; what is not here is refused, and what computes is named."""

from __future__ import annotations

import json

import onnxruntime
import pytest

from fulmen_backend_onnxruntime.backend import OnnxRuntimeBackend
from fulmen_backend_onnxruntime.providers import choose_provider, installed_providers
from fulmen_core.cli import main
from fulmen_core.errors import CapabilityError
from fulmen_core.runner import SequenceStep
from fulmen_testing.exporter.artefacts import LIMITS
from fulmen_testing.exporter.exported import Exported

CPU = "CPUExecutionProvider"


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that lists CUDA's provider, as its builds for GPUs do, on a machine that cannot start it."""
    names = ["CUDAExecutionProvider", "AzureExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)


def test_every_provider_of_this_build_that_is_a_device_can_be_named() -> None:
    assert installed_providers()["cpu"] == CPU
    assert "azure" not in installed_providers()
    for short, name in installed_providers().items():
        assert choose_provider(short) == choose_provider(name) == (name, "asked for")


@pytest.mark.usefixtures("with_cuda")
def test_the_cpu_computes_unless_another_is_asked_for_and_it_says_which_could() -> None:
    chosen = choose_provider(None)
    assert chosen.name == CPU
    assert "provider=cuda" in chosen.reason
    assert choose_provider("CUDA").name == "CUDAExecutionProvider"


@pytest.mark.parametrize("asked", ["cuda", "azure", "AzureExecutionProvider", "dml"])
def test_a_provider_that_is_not_here_is_refused_in_a_sentence_that_names_what_is(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["OpenVINOExecutionProvider", CPU])
    with pytest.raises(CapabilityError, match=f"no provider '{asked}', but openvino, cpu: "):
        choose_provider(asked)
    with pytest.raises(CapabilityError, match="did you mean 'openvino'"):
        choose_provider("opnvino")


@pytest.mark.usefixtures("with_cuda")
def test_a_provider_that_does_not_start_is_no_silent_cpu(lightning: Exported) -> None:
    with pytest.raises(CapabilityError, match="CUDAExecutionProvider is installed but does not start"):
        OnnxRuntimeBackend().load_runner(lightning.artefact, LIMITS, provider="cuda")


def test_a_runner_and_the_explanation_count_the_same_nodes(lightning: Exported) -> None:
    backend = OnnxRuntimeBackend()
    runner = backend.load_runner(lightning.artefact, LIMITS, provider="cpu")
    placed = backend.placement(lightning.artefact, provider="cpu")
    assert (placed["provider"], placed["why"]) == (CPU, "asked for")
    count, name = placed["nodes"].split()
    assert name == CPU
    # an attention operator in each layer, at the least
    assert int(count) > lightning.config.num_hidden_layers
    assert runner.choices["nodes"] == placed["nodes"]  # type: ignore[attr-defined] # of this backend's runner
    assert runner.step([SequenceStep(0, 0, [1, 2])]).shape == (1, runner.vocab_size)
    runner.close()


def test_the_command_line_explains_and_refuses(lightning: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    explain = ["backends", "explain", "--model", str(lightning.artefact)]
    assert main([*explain, "--json"]) == 0
    [row] = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "onnxruntime"]
    assert row["placement"]["provider"] == CPU
    assert row["placement"]["nodes"] in row["why"]
    assert main([*explain, "--backend", "onnxruntime", "--backend-option", "provider=abacus"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "has no provider 'abacus', but cpu" in line
    assert main([*explain, "--backend", "onnxruntime", "--backend-option", "providr=cpu"]) == 2
    assert "has no option 'providr': did you mean 'provider'" in capsys.readouterr().err
