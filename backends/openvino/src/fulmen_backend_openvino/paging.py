"""Turns the exported graph into the one that is served: attention over pages, any mix of chunks and tokens in a step.

Each layer's attention over states becomes OpenVINO's paged attention over blocks of `BLOCK_TOKENS` positions, the
operator that its own GenAI pipelines run. All tokens of a step lie one below another, so nothing is padded. Window
caches get tables of their own, which begin at the block that the oldest visible key lies in: what they read does not
grow with the sequence, and their blocks are used in turn. A layer that borrows reads the owner's blocks.

Legend: N tokens of the step, S sequences, R tokens whose results are wanted, H heads, K kv heads, h head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import openvino
from openvino import op, opset15

from fulmen_backend_openvino import names
from fulmen_backend_openvino.operators import Value, integer, integers, real, reshape
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.layer_plan import LayerPlan

#: What the CPU plugin's kernels are made for.
BLOCK_TOKENS = 32

ROWS, BEGINS = "rows", "subsequence_begins"


class TableInputs(NamedTuple):
    """The names of the inputs that say where one group of caches keeps its sequences.

    Attributes:
        past: positions before the step that the table covers, int32 [S].
        blocks: numbers of blocks, one sequence after another, int32.
        begins: where each sequence's blocks begin, and the end, int32 [S + 1].
        longest: positions after the step of the longest sequence, as covered, int32.
    """

    past: str
    blocks: str
    begins: str
    longest: str

    @classmethod
    def of(cls, window: int | None) -> TableInputs:
        """The names for full caches, or for those of one window."""
        suffix = "" if window is None else f".window_{window}"
        return cls(f"past_lens{suffix}", f"block_indices{suffix}", f"block_indices_begins{suffix}", f"longest{suffix}")


def cache_input(cache: int, kind: str) -> str:
    """The name of the input that is a cache's memory, `kind` being "key" or "value"."""
    return f"{kind}_cache.{cache}"


def paged_graph(model: openvino.Model, config: ModelConfig) -> openvino.Model:
    """The served graph of an exported one, which is used up.

    Inputs: `input_ids` and `position_ids` int64 [N, 1]; `rows` int32 [R], the tokens whose results are wanted;
    `subsequence_begins` int32 [S + 1]; those of `TableInputs` for each group of caches; and each cache's memory.
    Outputs: `logits` [R, 1, V] and `hidden` [R, 1, D].

    Raises:
        KeyError: the graph has not the names that the exporter gives.
    """
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    inputs = [nodes[names.INPUT_IDS], nodes[names.POSITION_IDS]]
    for node in inputs:
        node.set_partial_shape(openvino.PartialShape([-1, 1]))
    begins, rows = _input(BEGINS, [-1], np.int32), _input(ROWS, [-1], np.int32)
    tables: dict[int | None, list[Value]] = {}
    for group in CacheSpec.of(config).groups:
        labels = TableInputs.of(group.window)
        tables[group.window] = [_input(name, [-1], np.int32) for name in labels[:3]]
        tables[group.window].append(_input(labels.longest, [], np.int32))
    caches = [
        tuple(_input(cache_input(owner.cache, kind), [-1] * 4, np.float32) for kind in ("key", "value"))
        for owner in LayerPlan.of(config).cache_owners
    ]
    width = config.num_attention_heads * config.head_dim
    kv_width = config.num_key_value_heads * config.head_dim
    for layer in LayerPlan.of(config):
        past, blocks, block_begins, longest = tables[layer.window]
        operands = [
            reshape(nodes[names.query(layer.index)], -1, width),
            *(reshape(nodes[names.new(layer.cache, kind)], -1, kv_width) for kind in ("key", "value")),
            *caches[layer.cache],
            *(past, begins, blocks, block_begins),
            real(config.head_dim**-0.5),
            _whole(layer.window or 0),
        ]
        mixed = _paged_attention(operands, longest, config)
        if not layer.owns_kv:
            mixed.set_attribute("write_kv_cache", False)  # the owner has written them
        _replace(nodes[names.heads(layer.index)], opset15.unsqueeze(mixed.output(0), integers(1)))
    _replace(nodes[names.STREAM], opset15.gather(nodes[names.STREAM], rows, integer(0)))
    logits = model.get_results()[0]
    hidden = opset15.result(nodes[names.HIDDEN])
    inputs += [rows, begins, *(node for table in tables.values() for node in table)]
    inputs += [node for pair in caches for node in pair]
    paged = openvino.Model([logits, hidden], inputs, "paged")
    paged.output(1).get_tensor().set_names({names.HIDDEN})
    paged.validate_nodes_and_infer_types()
    return paged


def _paged_attention(operands: Sequence[Value], longest: Value, config: ModelConfig) -> Any:
    none, no_reals = _empty(np.int32), _empty(np.float32)
    operands = [
        *operands,
        no_reals,  # ALiBi
        longest,
        none,  # scores that are given back
        *(none, none, no_reals),  # rotation of what is cached
        *(no_reals, _whole(0), _whole(0)),  # sparse attention
        opset15.constant(np.zeros((0, 0, 0, 0), np.float32)),  # sinks
        *(_whole(0), none, none, none),  # eviction
        none,  # token types
        *(_empty(np.uint8), none),  # a bias among queries
    ]
    node = op._PagedAttentionExtension([x.output(0) if hasattr(x, "output") else x for x in operands])
    about = node.get_rt_info()
    for kind in ("k", "v"):
        about[f"num_{kind}_heads"], about[f"{kind}_head_size"] = config.num_key_value_heads, config.head_dim
    return node


def _input(name: str, shape: list[int], dtype: Any) -> Value:
    node = opset15.parameter(shape, dtype, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def _whole(value: int) -> Value:
    return opset15.constant(np.array(value, np.int32))


def _empty(dtype: Any) -> Value:
    return opset15.constant(np.zeros(0, dtype))


def _replace(node: Value, by: Value) -> None:
    """Give `by` to whoever used `node`, but for `by` itself."""
    own = by.get_friendly_name()
    for user in node.output(0).get_target_inputs():
        if user.get_node().get_friendly_name() != own:
            user.replace_source_output(by.output(0))
