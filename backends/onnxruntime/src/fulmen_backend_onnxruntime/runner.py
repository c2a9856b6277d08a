"""Serving an artefact with ONNX Runtime: NumPy in, NumPy out, and the caches updated where they lie. Imports no torch.

Legend: S sequences in the step, B sequences in one run of the graph, T tokens of each, L wanted results of each, R
wanted results of the step, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulmen_backend_onnxruntime.artefact import GRAPH_FILE, HIDDEN, WANTED, read_onnx_manifest
from fulmen_backend_onnxruntime.kv_buffers import Dropped, KVBuffers
from fulmen_backend_onnxruntime.rows import Block, Rows
from fulmen_backend_onnxruntime.session import bind, open_session
from fulmen_backend_onnxruntime.step_runs import runs_of
from fulmen_core.errors import CapabilityError, CorruptArtefact
from fulmen_core.export.manifest import cache_names
from fulmen_core.model.config_file import load_config
from fulmen_core.model.kv import CacheSpec
from fulmen_core.model.layer_plan import LayerPlan
from fulmen_core.runner import CacheLayout, EngineLimits, SequenceStep


class OnnxRunner:
    """A `fulmen_core.runner.Runner` over an artefact that the "onnx" exporter wrote.

    Sequences with one token run together, and chunks of prompts do where padding costs little; where layers borrow keys
    and values, a prompt that goes on runs alone. `limits` is what was asked for, with the context cut to the positions
    that the artefact holds angles for.

    Args:
        artefact: the folder.
        limits: what the engine will ask for at most; all cache memory is reserved here.
        provider: of `fulmen_backend_onnxruntime.providers`.

    Raises:
        UserError, CapabilityError: the folder is missing, or no ONNX artefact.
        CorruptArtefact: a file is missing, truncated or altered, or ONNX Runtime cannot load it.
    """

    def __init__(self, artefact: Path, limits: EngineLimits) -> None:
        manifest = read_onnx_manifest(artefact)
        config = load_config(artefact)
        plan = LayerPlan.of(config)
        if not manifest.is_of(plan):
            raise CorruptArtefact("the manifest and the config describe different layers", where=str(artefact))
        self.cache = CacheSpec.of(config)
        self.limits = replace(limits, max_context=min(limits.max_context, config.max_position_embeddings))
        self.vocab_size, self._width = config.vocab_size, config.hidden_size
        self._session: Any = open_session(artefact / GRAPH_FILE, limits.threads)
        self.layout = CacheLayout(limits.slots, rewind=limits.draft_tokens)
        self._kv = KVBuffers(config, self.limits, manifest.dtype)
        self._ragged = all(layer.owns_kv for layer in plan)
        self._rows = Rows(limits.slots)
        self._lengths = [0] * limits.slots
        self._dropped: dict[int, Dropped] = {}  # by slot
        self._binding = lru_cache(maxsize=64)(self._bind_caches)
