"""Code that only a GPU can run is held against the real bindings: every attribute it uses is there, and takes what it
is given."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

from fulmen_backend_tensorrt import build_process, cuda, devices, engine_executor

from .conftest import needs_rtx

#: What a variable of this name is in the code, by the class of the bindings.
CLASSES = {
    engine_executor: {
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "context": "IExecutionContext",
        "runtime_config": "IRuntimeConfig",
    },
    build_process: {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "layer": "IAttentionInputLayer",
    },
}


def uses(module: ModuleType, name: str) -> Iterator[tuple[str, ast.Call | None]]:
    """Attributes of variables called `name`, with the call if they are called."""
    tree = ast.parse(inspect.getsource(module))
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == name:
            yield node.attr, called.get(id(node))


def arities(documentation: str) -> set[int]:
    """Numbers of arguments, without self, that the signatures in a binding's documentation allow."""
    found: set[int] = set()
    for signature in re.findall(r"^(?:\d+\. )?\w+\((.*)\) -> ", documentation, re.M):
        parameters = [part for part in re.split(r", (?=\w+:)", signature) if part and not part.startswith("*")]
        most = len(parameters) - (parameters[:1] != [] and parameters[0].startswith("self"))
        least = most - sum(" = " in parameter for parameter in parameters)
        found |= set(range(least, most + 1))
    return found


@needs_rtx
@pytest.mark.parametrize("module", [engine_executor, build_process], ids=lambda module: module.__name__)
def test_every_attribute_exists_in_the_bindings_and_takes_its_arguments(module: ModuleType) -> None:
    trt = importlib.import_module("tensorrt_rtx")
    checked = set()
    for variable, name in CLASSES[module].items():
        for attribute, call in uses(module, variable):
            assert hasattr(getattr(trt, name), attribute), f"{name} has no {attribute}"
            checked.add(f"{name}.{attribute}")
            signatures = arities(getattr(getattr(trt, name), attribute).__doc__ or "")
            if call is not None and signatures:
                given = len(call.args) + len(call.keywords)
                assert given in signatures, f"{name}.{attribute} takes {signatures} arguments, not {given}"
    assert len(checked) >= 8


@needs_rtx
def test_every_constant_of_the_bindings_exists() -> None:
    trt = importlib.import_module("tensorrt_rtx")
    chains = set()
    for module in (engine_executor, build_process):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("trt."):
                chains.add(ast.unparse(node).removeprefix("trt."))
    assert {"ExecutionContextAllocationStrategy.USER_MANAGED", "BuilderFlag.REFIT"} <= chains
    for chain in chains:
        found: object = trt
        for part in chain.split("."):
            found = getattr(found, part)


def test_every_call_of_the_cuda_runtime_exists_and_takes_its_arguments() -> None:
    cudart = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    names = set()
    for module in (cuda, devices):
        for variable in ("cudart", "self._cudart"):
            for attribute, _ in uses(module, variable):
                assert hasattr(cudart, attribute), attribute
                names.add(attribute)
    tree = ast.parse(inspect.getsource(cuda))
    checked = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._call":
            function = getattr(cudart, ast.unparse(node.args[0]).rpartition(".")[2])
            signature = (function.__doc__ or "").splitlines()[0]
            parameters = re.search(r"\((.*)\)", signature)
            assert parameters, signature
            assert len(node.args) - 1 == len([p for p in parameters[1].split(",") if p.strip()]), signature
            checked += 1
    assert checked >= 15
    assert {"cudaGraphLaunch", "cudaStreamBeginCapture"} <= names


def test_the_cuda_runtime_says_itself_why_there_is_no_gpu() -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    if devices.find_devices().devices:
        pytest.skip("there is a GPU")
    with pytest.raises(cuda.CudaError, match="cudaSetDevice: cudaError "):
        cuda.Cuda()
