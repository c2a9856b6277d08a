"""Claims about starting: the backend is chosen by what it can serve, and without its guard nothing runs."""

from __future__ import annotations

import asyncio
import json
import shutil
from types import ModuleType

import pytest

from fulmen_core.backend import Capabilities
from fulmen_core.descriptors import Availability, BackendInfo, GuardInfo
from fulmen_core.errors import CapabilityError, PluginError, UserError
from fulmen_core.hooks import hookimpl
from fulmen_core.model_directory import ModelDirectory, choose_backend
from fulmen_core.registry import Registry
from fulmen_serving.answer_options import AnswerOptions
from fulmen_serving.loading import ServingOptions, load_service
from fulmen_serving.prompt import ChatPrompt


class Stone:
    """A backend that serves what it is told to with the test runner."""

    def __init__(self, kit, name, formats, serve=True):
        self.kit, self.name, self.formats, self.serve = kit, name, formats, serve
        self.loaded = []

    def capabilities(self):
        return Capabilities(serve=self.serve, formats=self.formats)

    def load_runner(self, model, limits, dtype="float32"):
        self.loaded.append(limits)
        return self.kit.ParrotRunner(limits, self.kit.tokenizer)


def plugin(name, backends=(), guard=None, records=None):
    """A plugin module made of hooks."""
    module = ModuleType(name)
    if backends:

        @hookimpl
        def fulmen_backends():
            return [
                BackendInfo(
                    b.name,
                    "for tests",
                    lambda b=b: Availability(b.formats != ("gone",), "no such chip"),
                    lambda b=b: b,
                    p,
                )
                for p, b in enumerate(backends)
            ]

        module.fulmen_backends = fulmen_backends
    if guard is not None:

        @hookimpl
        def fulmen_guards():
            return [GuardInfo("raise", "for tests", guard)]

        module.fulmen_guards = fulmen_guards
    if records is not None:

        @hookimpl
        def fulmen_request_done(record):
            records.append(record)

        module.fulmen_request_done = fulmen_request_done
    return module


def test_auto_takes_the_first_backend_that_serves_the_format(kit):
    slow, fast, best = (
        Stone(kit, "slow", ("checkpoint", "onnx")),
        Stone(kit, "fast", ("onnx",)),
        Stone(kit, "best", ("gone",)),
    )
    registry = Registry.of(plugin("three", [slow, fast, best]))
    assert choose_backend(registry, "auto", "onnx").name == "fast"
    assert choose_backend(registry, "auto", "checkpoint").name == "slow"
    assert choose_backend(registry, "slow", "onnx").name == "slow"


@pytest.mark.parametrize(
    ("exported", "can", "served"),
    [
        ("float16", ("float32", "float16"), "float16"),
        ("float16", ("float32",), "float32"),
        (None, ("bfloat16", "float32"), "float32"),
    ],
)
def test_an_artefact_is_served_in_what_it_was_exported_in_where_the_backend_can(
    kit, nano_directory, tmp_path, exported, can, served
):
    directory = shutil.copytree(nano_directory, tmp_path / "model")
    if exported:
        (directory / "fulmen_artefact.json").write_text(json.dumps({"format": "onnx", "dtype": exported}))
    stone = Stone(kit, "stone", ("onnx", "checkpoint"))
    stone.capabilities = lambda: Capabilities(serve=True, formats=("onnx",), serve_dtypes=can)
    assert ModelDirectory.inspect(directory).dtype_on(stone) == served


def test_an_option_reaches_the_backend_that_has_it_and_no_other(kit, nano_directory):
    stone = Stone(kit, "stone", ("checkpoint",))
    registry, given = Registry.of(plugin("one", [stone])), []
    options = ServingOptions(nano_directory, backend_options={"provider": "cpu"}, guarded=False)
    with pytest.raises(CapabilityError, match="stone has no option 'provider'"):
        load_service(options, registry)
    assert stone.loaded == []
    stone.capabilities = lambda: Capabilities(serve=True, formats=("checkpoint",), options=("provider",))
    stone.load_runner = lambda *args, provider: (given.append(provider), kit.ParrotRunner(args[1], kit.tokenizer))[1]
    load_service(options, registry).close()
    assert given == ["cpu"]


def test_where_no_backend_fits_each_says_why(kit):
    stones = [Stone(kit, "mute", ("onnx",), serve=False), Stone(kit, "fast", ("onnx",)), Stone(kit, "best", ("gone",))]
    registry = Registry.of(plugin("three", stones))
    with pytest.raises(PluginError) as none:
        choose_backend(registry, "auto", "checkpoint")
    for words in (
        "mute does not serve",
        "fast serves onnx, not checkpoint",
        "no such chip",
        "pip install fulmen-backend-cpu",
    ):
        assert words in str(none.value)
    with pytest.raises(CapabilityError, match="fast serves onnx, not checkpoint"):
        choose_backend(registry, "fast", "checkpoint")
    with pytest.raises(PluginError, match="did you mean 'fast'"):
        choose_backend(registry, "fats", "onnx")


def test_the_guards_policy_and_the_generation_config_reach_the_service(kit, nano_directory, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(nano_directory, model)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 300, "temperature": 0.25, "top_p": 0.5}))
    policy, records, asked = tmp_path / "policy.toml", [], []
    policy.write_text("")

    def guard(path, registry):
        asked.append(path)
        return kit.WordGuard()

    registry = Registry.of(plugin("all", [Stone(kit, "stone", ("checkpoint",))], guard, records))
    service = load_service(ServingOptions(model, name="mine", policy=policy, max_context=200), registry)
    try:
        assert asked == [policy]
        assert service.model.name == "mine"
        assert (service.model.temperature, service.model.top_p) == (0.25, 0.5)
        assert service.model.stop_ids == {300, *kit.tokenizer.stop_ids}
        assert service.max_context == 200

        async def one():
            answer = await service.open(ChatPrompt(({"role": "user", "content": "hello"},)), AnswerOptions())
            async for _ in answer:
                pass
            answer.close()

        asyncio.run(one())
    finally:
        service.close()
    assert [record["model"] for record in records] == ["mine"]


@pytest.mark.parametrize("fault", ["raises", "missing"])
def test_without_its_guard_no_model_is_even_loaded(kit, nano_directory, fault):
    def broken(path, registry):
        raise RuntimeError("its model is gone")

    stone = Stone(kit, "stone", ("checkpoint",))
    registry = Registry.of(plugin("all", [stone], broken if fault == "raises" else None))
    with pytest.raises(UserError, match="not served without its guard") as refusal:
        load_service(ServingOptions(nano_directory), registry)
    assert ("its model is gone" if fault == "raises" else "pip install fulmen-safety") in str(refusal.value)
    assert stone.loaded == []


def test_unguarded_is_served_when_asked_for_and_the_context_is_bounded_by_default(kit, nano_directory):
    stone = Stone(kit, "stone", ("checkpoint",))
    service = load_service(ServingOptions(nano_directory, guarded=False), Registry.of(plugin("one", [stone])))
    service.close()
    assert service.guard is None
    assert stone.loaded[0].max_context == ModelDirectory.inspect(nano_directory).max_context == 512


def test_precision_and_quantisation_reach_the_backend_and_only_if_chosen(kit, nano_directory):
    class Precise(Stone):
        def load_runner(self, model, limits, dtype="float32", **chosen):
            self.asked = (dtype, chosen)
            return super().load_runner(model, limits, dtype)

    stone = Precise(kit, "stone", ("checkpoint",))
    registry = Registry.of(plugin("one", [stone]))
    for options, asked in (
        ({}, ("float32", {})),
        (
            {"dtype": "bfloat16", "quantize": "int8", "kv_dtype": "int8"},
            ("bfloat16", {"quantize": "int8", "kv_dtype": "int8"}),
        ),
    ):
        load_service(ServingOptions(nano_directory, guarded=False, **options), registry).close()
        assert stone.asked == asked


def test_the_fingerprint_follows_weights_policy_and_backend_and_nothing_else(nano_directory, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(nano_directory, copy)
    one = ModelDirectory.inspect(nano_directory).fingerprint("cpu", "policy 1")
    assert ModelDirectory.inspect(copy).fingerprint("cpu", "policy 1") == one
    others = {ModelDirectory.inspect(copy).fingerprint(*pair) for pair in (("cpu", "policy 2"), ("onnx", "policy 1"))}
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    others.add(ModelDirectory.inspect(copy).fingerprint("cpu", "policy 1"))
    assert len(others | {one}) == 4


@pytest.mark.parametrize("content", [{"temperature": "hot"}, {"eos_token_id": ["x"]}])
def test_defaults_that_are_no_numbers_stop_the_start(kit, nano_directory, tmp_path, content):
    model = tmp_path / "model"
    shutil.copytree(nano_directory, model)
    (model / "generation_config.json").write_text(json.dumps(content))
    registry = Registry.of(plugin("one", [Stone(kit, "stone", ("checkpoint",))]))
    with pytest.raises(UserError, match=f"{next(iter(content))} is .* in .*generation_config.json"):
        load_service(ServingOptions(model, guarded=False), registry)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "[]", "is no JSON object"),
        ("config.json", "{", "config.json"),
        ("config.json", '{"vocab_size": 512, "max_position_embeddings": 0}', "max_position_embeddings is 0"),
        ("generation_config.json", "3", "is no JSON object"),
        ("fulmen_artefact.json", "{}", "there is no format"),
    ],
)
def test_a_damaged_small_file_is_one_sentence(nano_directory, tmp_path, name, content, words):
    model = tmp_path / "model"
    shutil.copytree(nano_directory, model)
    (model / name).write_text(content)
    with pytest.raises(UserError, match=words):
        ModelDirectory.inspect(model)
