"""The claims about a backend fail when they must: one fault is put into a sound backend, and its claim finds it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fulmen_testing.backend import BackendConformance, Subject
from fulmen_testing.backend.bench import Bench

from .conftest import MakeSubject

SEED = 20

#: What is wrong: the file, the passage, what stands there instead, and the claim that must find it.
FAULTS = {
    "a window one too wide": (
        "runner.py",
        "behind_TS < layer.window",
        "behind_TS <= layer.window",
        "test_windows_are_crossed_at_every_border",
    ),
    "a window cache too short": (
        "runner.py",
        "kept = layer.window + self.limits.draft_tokens",
        "kept = max(1, layer.window - 3)",
        "test_a_prompt_may_be_cut_anywhere",
    ),
    "rows in the wrong order": (
        "runner.py",
        "torch.cat(rows)",
        "torch.cat(rows[::-1])",
        "test_random_plans_in_random_mixed_steps",
    ),
    "positions that begin at 1": (
        "runner.py",
        "rotary(at_T[None],",
        "rotary(at_T[None] * 2,",
        "test_greedy_tokens",
    ),
    "a slot that keeps what it held": (
        "runner.py",
        "            slot.caches = {}\n",
        "            pass\n",
        "test_a_new_sequence_needs_no_release",
    ),
    "a fork that is its source": (
        "runner.py",
        "self._slots[target] = _Slot(held.length, dict(held.caches))",
        "self._slots[target] = held",
        "test_forks_share_a_prefix",
    ),
    "tokens that stay when taken back": (
        "runner.py",
        "elif surplus > 0:",
        "elif surplus > 50:",
        "test_tokens_that_are_taken_back_leave_no_trace",
    ),
    "bits that hang on the company": (
        "runner.py",
        "torch.cat(rows).numpy()",
        "torch.cat(rows).numpy() + len(batch) * 1e-5",
        "test_a_sequence_gets_the_same_bits_alone_and_in_company",
    ),
    "noise": (
        "runner.py",
        "torch.cat(rows).numpy()",
        "(torch.cat(rows) + 1e-5 * torch.rand(1)).numpy()",
        "test_the_same_steps_give_the_same_bits",
    ),
    "coarse logits": (
        "runner.py",
        "torch.cat(rows).numpy()",
        "torch.cat(rows).mul(0.3).round().div(0.3).numpy()",
        "test_a_listed_dtype_keeps_its_tolerance[bfloat16-dense]",
    ),
    "a context that is not cut": (
        "runner.py",
        "min(limits.max_context, config.max_position_embeddings)",
        "limits.max_context",
        "test_a_context_beyond_the_models_is_cut_to_it",
    ),
    "models that are kept for ever": (
        "runner.py",
        "    def close(self) -> None:\n",
        "    def close(self, kept=[]) -> None:\n        kept.append(vars(self).get('_model'))\n",
        "test_loading_and_closing_leaks_nothing",
    ),
    "a second close that raises": (
        "runner.py",
        'vars(self).pop("_model", None)',
        'vars(self).pop("_model")',
        "test_closing_is_idempotent",
    ),
    "hidden states that are declared and refused": (
        "backend.py",
        "serve=True,",
        "serve=True, embed=True,",
        "test_hidden_states_are_given_or_refused",
    ),
    "a dtype that is served in silence": (
        "backend.py",
        'require(self.name, "serve in", dtype, can.serve_dtypes)',
        "pass",
        "test_a_dtype_it_does_not_list_is_refused[float16]",
    ),
    "a quantisation that is ignored": (
        "backend.py",
        "if quantize is not None:",
        "if quantize is not None and False:",
        "test_quantisations_it_does_not_list_are_refused",
    ),
    "training that is promised": (
        "backend.py",
        "serve=True,",
        'serve=True, train=True, train_dtypes=("float32",),',
        "test_two_steps_follow_the_gradients[float32-dense]",
    ),
    "a dtype it has not": (
        "backend.py",
        '("float32", "bfloat16")',
        '("float32", "bfloat16", "float8")',
        "test_its_capabilities_are_consistent",
    ),
    "errors that are not the user's": (
        "backend.py",
        "        return AcmeRunner(model, limits, dtype)\n",
        "        try:\n            return AcmeRunner(model, limits, dtype)\n        except Exception as error:\n"
        "            raise RuntimeError(str(error)) from error\n",
        "test_damaged_files_are_named",
    ),
    "a heavy plugin module": (
        "plugin.py",
        "from fulmen_core.hooks import hookimpl\n",
        "from fulmen_core.hooks import hookimpl\nimport numpy\n",
        "test_the_plugin_module_is_light",
    ),
    "a probe that raises": (
        "plugin.py",
        "    except PackageNotFoundError:",
        "    except KeyError:",
        "test_its_probe_answers_where_no_library_is_installed",
    ),
    "a loader that leads nowhere": (
        "plugin.py",
        "acme_fulmen_backend.backend:AcmeBackend",
        "acme_fulmen_backend.chip:AcmeBackend",
        "test_the_plugin_loads_and_all_it_promises_is_there",
    ),
}


class Sound(BackendConformance):
    """All claims, to be called one by one."""


def claim(subject: Subject, folder: Path, name: str) -> Callable[[], Any]:
    """One claim with its arguments, as pytest would call it."""
    name, _, parameters = name.partition("[")
    suite = Sound()
    method = getattr(suite, name)
    wanted = inspect.signature(method).parameters
    given: dict[str, Any] = {"subject": subject, "tmp_path": folder, "record_property": lambda *_: None}
    if "bench" in wanted or "serving" in wanted or "model" in wanted:
        bench = Bench(subject, folder / "bench", SEED, subject.registry.backend("acme"))
        given |= {"bench": bench, "serving": bench, "model": bench.lightning()}
    if parameters:
        dtype, _, experts = parameters.removesuffix("]").partition("-")
        given |= {"dtype": dtype, "experts": experts == "experts"}
    return lambda: method(**{one: given[one] for one in wanted})


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_its_claim(skeleton: MakeSubject, tmp_path: Path, fault: str) -> None:
    file, old, new, name = FAULTS[fault]
    # a fault shows as a failed assertion, or as what it raises
    with pytest.raises((Exception, pytest.fail.Exception, pytest.skip.Exception)) as raised:
        claim(skeleton("backend", file, old, new), tmp_path, name)()
    assert not isinstance(raised.value, pytest.skip.Exception), "the claim was skipped"


@pytest.mark.parametrize(
    "name", sorted({fault[3] for fault in FAULTS.values()} - {"test_two_steps_follow_the_gradients[float32-dense]"})
)
def test_the_same_claim_holds_without_the_fault(skeleton: MakeSubject, tmp_path: Path, name: str) -> None:
    claim(skeleton("backend"), tmp_path, name)()
