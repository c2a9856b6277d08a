"""The exported graph as others run it, with states: fed as optimum-intel and OpenVINO GenAI do, it is the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset15
from openvino._offline_transformations import paged_attention_transformation
from openvino.properties import hint

from fulmen_backend_openvino.compiling import core
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_testing.exporter.exported import Exported
from fulmen_testing.models import VOCABULARY

from .driving import expected_logits


@pytest.fixture(scope="module")
def request_of(exported: Exported) -> Any:
    config = {hint.inference_precision: openvino.Type.f32, hint.kv_cache_precision: openvino.Type.f32}
    compiled = core().compile_model(exported.artefact / "openvino_model.xml", "CPU", config)
    return compiled.create_infer_request()


def feed(request: Any, ids_BT: NDArray[np.int64], mask_BS: NDArray[np.int64], beams: Sequence[int]) -> Any:
    """Logits [B, T, V] of one step, positions counted as the pipelines do."""
    positions_BS = np.maximum(mask_BS.cumsum(1) - 1, 0)
    inputs = {
        "input_ids": ids_BT,
        "attention_mask": mask_BS,
        "position_ids": positions_BS[:, -ids_BT.shape[1] :],
        "beam_idx": np.array(beams, np.int32),
    }
    return request.infer(inputs)["logits"].copy()


def assert_alike(exported: Exported, tokens: Sequence[int], logits_TV: NDArray[np.float32]) -> None:
    expected_TV = expected_logits(exported.model, tokens)
    settled_T = ~np.isnan(expected_TV).any(1)
    atol = 1e-4 * max(1, np.abs(expected_TV[settled_T]).max(initial=0) / 10)
    np.testing.assert_allclose(logits_TV[settled_T], expected_TV[settled_T], atol=atol, rtol=0, err_msg=exported.label)


def test_chunks_and_single_tokens_equal_the_whole_forward_pass(exported: Exported, request_of: Any) -> None:
    request_of.reset_state()
    ids_BT = np.random.default_rng().integers(0, VOCABULARY, (2, 50))
    parts, done = [], 0
    for count in (1, 5, 20, 1, 1, 1, 9, 12):
        mask_BS = np.ones((2, done + count), np.int64)
        parts.append(feed(request_of, ids_BT[:, done : done + count], mask_BS, (0, 1)))
        done += count
    for row, logits_TV in zip(ids_BT, np.concatenate(parts, 1), strict=True):
        assert_alike(exported, row.tolist(), logits_TV)


def test_prompts_padded_on_the_left_equal_each_alone(exported: Exported, request_of: Any) -> None:
    request_of.reset_state()
    random = np.random.default_rng()
    lengths = (23, 9, 1)
    rows = [random.integers(0, VOCABULARY, length + 6) for length in lengths]
    ids_BT = np.zeros((3, 23), np.int64)
    mask_BS = np.zeros((3, 29), np.int64)
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        ids_BT[number, 23 - length :] = row[:length]
        mask_BS[number, 23 - length :] = 1
    found = [feed(request_of, ids_BT, mask_BS[:, :23], range(3))]
    for step in range(6):
        new_B1 = np.array([[row[length + step]] for row, length in zip(rows, lengths, strict=True)])
        found.append(feed(request_of, new_B1, mask_BS[:, : 24 + step], range(3)))
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        logits_TV = np.concatenate([part[number] for part in found])
        assert_alike(exported, row.tolist(), logits_TV[23 - length :])


def test_beams_go_on_from_the_states_they_name(exported: Exported, request_of: Any) -> None:
    request_of.reset_state()
    random = np.random.default_rng()
    ids_BT = random.integers(0, VOCABULARY, (3, 14))
    feed(request_of, ids_BT, np.ones((3, 14), np.int64), range(3))
    beams = (2, 0, 2)
    new_BT = random.integers(0, VOCABULARY, (3, 2))
    logits_BTV = feed(request_of, new_BT, np.ones((3, 16), np.int64), beams)
    for beam, new_T, logits_TV in zip(beams, new_BT, logits_BTV, strict=True):
        tokens = [*ids_BT[beam].tolist(), *new_T.tolist()]
        expected_TV = expected_logits(exported.model, tokens)
        if not np.isnan(expected_TV).any():
            atol = 1e-4 * max(1, np.abs(expected_TV).max() / 10)
            np.testing.assert_allclose(logits_TV, expected_TV[-2:], atol=atol, rtol=0, err_msg=exported.label)


def test_states_are_the_caches_of_the_plan_and_windows_stay_bounded(exported: Exported, request_of: Any) -> None:
    request_of.reset_state()
    feed(request_of, np.ones((1, 90), np.int64), np.ones((1, 90), np.int64), (0,))
    lengths = {state.name: state.state.shape[2] for state in request_of.query_state()}
    expected = {}
    for group in CacheSpec.of(exported.config).groups:
        kept = 90 if group.window is None else min(90, group.window - 1)
        for cache in group.caches:
            for kind in ("key", "value"):
                expected[f"past_key_values.{cache}.{kind}present.{cache}.{kind}"] = kept
    assert lengths == expected


def test_openvinos_own_paging_finds_each_window(exported: Exported) -> None:
    # GenAI's pipelines page like this; a window that it does not recognise is left out without a word
    graph = core().read_model(exported.artefact / "openvino_model.xml")
    paged_attention_transformation(graph)
    operands = [node.input_value(10) for node in graph.get_ops() if node.get_type_name() == "PagedAttentionExtension"]
    constants = openvino.Model([opset15.result(operand) for operand in operands], [])
    found = [int(value) for value in core().compile_model(constants, "CPU")([]).values()]
    assert sorted(found) == sorted(layer.window or 0 for layer in LayerPlan.of(exported.config)), exported.label
