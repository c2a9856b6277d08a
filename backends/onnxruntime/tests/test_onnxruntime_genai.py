"""onnxruntime-genai, where it is installed, loads an artefact as it is and gives the same greedy answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fulmen_backend_onnxruntime.runner import OnnxRunner
from fulmen_core.backend import Quantization
from fulmen_core.export.options import ExportOptions
from fulmen_core.generation import generate
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_core.sampling import SamplingParams
from fulmen_testing.models import VOCABULARY

from .conftest import CONTEXT, LIGHTNING, export, family

END = 7

genai = pytest.importorskip("onnxruntime_genai", reason="pip install onnxruntime-genai")


def greedy(artefact: Path, prompt: list[int], count: int) -> list[int]:
    """Its answer of `count` tokens, or to the end token."""
    config = genai.Config(str(artefact))
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": 1}}}}))
    model = genai.Model(config)
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=CONTEXT, do_sample=False)
    generator = genai.Generator(model, params)
    generator.append_tokens(np.array([prompt], np.int32))
    answer: list[int] = []
    while len(answer) < count and not generator.is_done():
        generator.generate_next_token()
        answer.append(int(generator.get_next_tokens()[0]))
    return answer


@pytest.mark.parametrize(("quantize", "tie"), [(None, 1e-4), ("int8", 0.3), ("int4", 0.3)])
@pytest.mark.parametrize("name", ["llama", "afmoe", "lightning"])
def test_its_greedy_answers_are_ours(name: str, quantize: Quantization | None, tie: float, tmp_path: Path) -> None:
    """Its caches have other sizes, so sums are rounded otherwise: tokens whose logits are within `tie` may differ."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    config = (LIGHTNING if name == "lightning" else family(name)).model_copy(update={"eos_token_id": END})
    made = export(config, seed, tmp_path, ExportOptions(quantize=quantize))
    prompt = np.random.default_rng(seed).integers(0, VOCABULARY, 30).tolist()
    runner = OnnxRunner(made.artefact, EngineLimits(1, CONTEXT, threads=1))
    [ours] = generate(runner, [prompt], SamplingParams(temperature=0, max_tokens=60), stop_ids=[END])
    theirs = greedy(made.artefact, prompt, 60)
    agreed = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours))
    if agreed < len(ours):
        [logits_V] = runner.step([SequenceStep(0, 0, prompt + ours[:agreed])])
        assert logits_V.max() - logits_V[theirs[agreed]] < tie, made.label
    else:
        assert theirs == ours, made.label
    runner.close()


def test_half_precision_loads_too(tmp_path: Path) -> None:
    made = export(family("afmoe"), 0, tmp_path, ExportOptions(dtype="float16"))
    assert greedy(made.artefact, [1, 2, 3], 5)
