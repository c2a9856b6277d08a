"""A Hugging Face `config.json` in Fulmen's terms, of transformers 4 (`rope_theta`, `rope_scaling`) or 5
(`rope_parameters`).

Keys that the family's class in transformers does not read are passed over, as transformers does; a key that it does
read, with a value that this network cannot have, is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, sqrt
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.formats.huggingface.families import FAMILIES, FIXED, Family
from fulmen_core.model.config import ModelConfig
from fulmen_core.model.config_file import parse_config

_KNOWN = ", ".join(sorted(FAMILIES))
_ROPE_NUMBERS = ("factor", "original_max_position_embeddings", "attention_factor", "mscale", "mscale_all_dim")


def import_config(document: Mapping[str, Any], where: str) -> tuple[Family, ModelConfig]:
    """The family and the config of a model whose `config.json`, at `where`, is `document`.

    Raises:
        UserError: the architecture or a value is not supported, or a key is missing or wrong.
    """
    reading = _Reading(document, where)
    return reading.family, reading.config()


class _Reading:
    """One document, the family it belongs to, and where it lies, for sentences."""

    def __init__(self, document: Mapping[str, Any], where: str) -> None:
        self.where = where
        name = document.get("model_type")
        if not isinstance(name, str) or name not in FAMILIES:
            raise UserError(
                f"model_type {name!r} is not supported",
                where=where,
                remedy="it is a Fulmen model already" if name == "fulmen" else f"these are: {_KNOWN}",
            )
        self.family = FAMILIES[name]
        self.document = {**self.family.defaults, **document}
        for key, value in {**FIXED, **self.family.fixed}.items():
            if self.document.get(key) not in (None, value):
                raise self.refuse(key, f"only {value!r} is" if value is not None else "a checkpoint without it is")

    def refuse(self, key: str, remedy: str) -> UserError:
        """The error for a key with a value that cannot be had."""
        return UserError(f"{key} {self.document[key]!r} is not supported", where=self.where, remedy=remedy)

    def integer(self, key: str, least: int = 1) -> int:
        """The whole number at `key`."""
        value = self.document.get(key)
        if value is None:
            raise UserError(f"key '{key}' is missing", where=self.where)
        if type(value) is not int or not least <= value < 2**63:
            raise UserError(f"{key} {value!r} is no whole number of {least} or more", where=self.where)
        return value

    def config(self) -> ModelConfig:
        """All of it."""
        document = self.document
        width, heads, layers = (self.integer(k) for k in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
        if layers > 4096:
            raise self.refuse("num_hidden_layers", "up to 4096 are")
        values: dict[str, Any] = {
            "vocab_size": self.integer("vocab_size"),
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": document.get("num_key_value_heads") or heads,
            "head_dim": document.get("head_dim") or width // heads,
            "max_position_embeddings": self.integer("max_position_embeddings"),
            "kv_share": 1,
            "intermediate_size": self.integer("intermediate_size"),
            "rms_norm_eps": document.get("rms_norm_eps", 1e-6),
            "qk_norm": self.family.name in ("qwen3", "qwen3_moe", "olmoe", "afmoe"),
            "tie_word_embeddings": document.get("tie_word_embeddings", False),
            "initializer_range": document.get("initializer_range"),
            **{key: document.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
            **self.positions(),
            **self.windows(layers),
            **self.experts(layers),
        }
        if self.family.name == "olmoe":
            values |= {"qk_norm_span": "projection", "clip_qkv": document.get("clip_qkv")}
        if self.family.name == "afmoe":
            values |= {
                "rope_layers": "window",
                "attention_gate": True,
                "post_norms": True,
                "embedding_scale": sqrt(width) if document.get("mup_enabled") else 1.0,
            }
        return parse_config(values, self.where)

    def positions(self) -> dict[str, Any]:
        """Rotary base and scaling, as `RotaryEmbeddingConfigMixin` of transformers 5 reads both spellings."""
        document = self.document
        given = document.get("rope_scaling") or document.get("rope_parameters") or {}
        if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
            raise self.refuse(
                "rope_scaling" if document.get("rope_scaling") else "rope_parameters", "one set of them is"
            )
        theta = given.get("rope_theta") or document.get("rope_theta") or 10_000.0
        kind = given.get("rope_type") or given.get("type") or "default"
        where = f"{self.where} [rope parameters]"
        if context := document.get("original_max_position_embeddings"):
            given = {**given, "original_max_position_embeddings": context}
        for key in _ROPE_NUMBERS:
            if given.get(key) is not None and (type(given[key]) not in (int, float) or abs(given[key]) >= 2**63):
                raise UserError(f"{key} {given[key]!r} is no number that can be had", where=where)
        if given.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise UserError("rotation of a part of each head is not supported", where=where)
        if kind == "default":
            return {"rope_theta": theta}
        if kind not in ("linear", "llama3", "yarn"):
            raise UserError(f"rope_type {kind!r} is not supported", where=where, remedy="linear, llama3 and yarn are")
        scaling = {"rope_type": kind, "factor": given.get("factor")}
        if kind != "linear":
            context = given.get("original_max_position_embeddings") or self.integer("max_position_embeddings")
            scaling["original_max_position_embeddings"] = context
        if kind == "llama3":
            scaling |= {key: given.get(key) for key in ("low_freq_factor", "high_freq_factor")}
        if kind == "yarn":
            scaling |= self.yarn(given, scaling, where)
        if missing := [key for key, value in scaling.items() if value is None and key != "attention_factor"]:
            raise UserError(f"key '{missing[0]}' is missing", where=where)
        return {"rope_theta": theta, "rope_scaling": scaling}

    def yarn(self, given: Mapping[str, Any], scaling: Mapping[str, Any], where: str) -> dict[str, Any]:
        """What yarn has beyond a factor and the original context, and the factor where the contexts imply it."""
        if given.get("truncate") is False:
            raise UserError("yarn without truncation is not supported", where=where)
        context, factor = scaling["original_max_position_embeddings"], scaling["factor"]
        factor = factor if factor is not None else self.integer("max_position_embeddings") / context
        attention = given.get("attention_factor")
        scale, scale_all = given.get("mscale") or 0, given.get("mscale_all_dim") or 0
        if attention is None and scale > 0 and scale_all > 0 and factor > 1:
            attention = (0.1 * scale * log(factor) + 1) / (0.1 * scale_all * log(factor) + 1)
        return {
            "factor": factor,
            "beta_fast": given.get("beta_fast") or 32.0,
            "beta_slow": given.get("beta_slow") or 1.0,
            "attention_factor": attention,
        }

    def windows(self, layers: int) -> dict[str, Any]:
        """Which layers have a window, and how wide it is."""
        name, document = self.family.name, self.document
        if name in ("llama", "olmoe"):
            return {"layer_pattern": "F"}
        if name in ("mistral", "mixtral") or (name == "qwen3_moe" and document.get("use_sliding_window")):
            wide = document.get("sliding_window")
            return {"layer_pattern": "F"} if wide is None else {"layer_pattern": "S", "sliding_window": wide}
        if name == "qwen3_moe":
            return {"layer_pattern": "F"}
        kinds = document.get("layer_types")
        if kinds is None and name == "afmoe":
            every = self.integer("global_attn_every_n_layers")
            kinds = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)]
        elif kinds is None:
            full = self.integer("max_window_layers", least=0) if document.get("use_sliding_window") else layers
            kinds = ["full_attention" if i < full else "sliding_attention" for i in range(layers)]
        letters = {"full_attention": "F", "sliding_attention": "S"}
        if not isinstance(kinds, list) or len(kinds) != layers or not all(str(kind) in letters for kind in kinds):
            raise UserError(
                f"layer_types does not say full_attention or sliding_attention of each of {layers} layers",
                where=self.where,
            )
        pattern = shortest_period("".join(letters[kind] for kind in kinds))
        if "S" not in pattern:
            return {"layer_pattern": "F"}
        if name == "qwen3" and not document.get("use_sliding_window"):
            raise self.refuse("layer_types", "use_sliding_window must be true if layers have windows")
        return {"layer_pattern": pattern, "sliding_window": self.integer("sliding_window")}

    def experts(self, layers: int) -> dict[str, Any]:
        """Experts, their router, and the leading dense layers."""
        name, document = self.family.name, self.document
        if name in ("llama", "mistral", "qwen3"):
            return {"num_experts": 0}
        count = self.integer("num_local_experts" if document.get("num_experts") is None else "num_experts", least=0)
        values: dict[str, Any] = {
            "num_experts": count,
            "num_experts_per_tok": self.integer("num_experts_per_tok", least=0),
            "moe_intermediate_size": self.integer(
                "intermediate_size" if name in ("mixtral", "olmoe") else "moe_intermediate_size"
            ),
            "norm_topk_prob": document.get("norm_topk_prob", False) if name in ("qwen3_moe", "olmoe") else True,
            "balance": balance(count),
        }
        if name == "qwen3_moe":
            values["num_dense_layers"] = self.leading_dense_layers(layers)
        if name == "afmoe":
            if not document.get("num_shared_experts"):
                raise self.refuse("num_shared_experts", "afmoe models with at least 1 are")
            values |= {
                "num_dense_layers": self.integer("num_dense_layers", least=0),
                "num_shared_experts": self.integer("num_shared_experts"),
                "router_score": "sigmoid",
                "router_bias": True,
                "router_scale": 1.0 if document.get("route_scale") is None else document["route_scale"],
            }
        return values

    def leading_dense_layers(self, layers: int) -> int:
        """How many layers of a Qwen3-MoE model are dense, if those are the first ones."""
        only, step = self.document.get("mlp_only_layers") or [], self.document.get("decoder_sparse_step") or 1
        if not isinstance(only, list) or type(step) is not int:
            raise UserError("mlp_only_layers is no list, or decoder_sparse_step no whole number", where=self.where)
        dense = [index in only or (index + 1) % step != 0 for index in range(layers)]
        count = dense.index(False) if False in dense else layers
        if any(dense[count:]):
            raise UserError(
                f"layer {dense.index(True, count)} is dense behind a layer of experts",
                where=f"{self.where} [mlp_only_layers {only}, decoder_sparse_step {step}]",
                remedy="only leading layers can be dense",
            )
        return count


def shortest_period(letters: str) -> str:
    """The shortest beginning of `letters` that gives all of it when it is repeated."""
    return next(
        letters[:n] for n in range(1, len(letters) + 1) if (letters[:n] * len(letters))[: len(letters)] == letters
    )


def balance(experts: int) -> dict[str, int]:
    """Groups and partitions of balance losses that divide `experts`: those of the report, or fewer."""
    choices: Sequence[tuple[int, int]] = [(4, 2), (4, 1), (2, 2), (2, 1), (1, 1)]
    groups, partitions = next((g, p) for g, p in choices if experts % (g * p) == 0)
    return {"expert_groups": groups, "partitions": partitions}
