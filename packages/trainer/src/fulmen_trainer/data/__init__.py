"""From sources to packed token shards and mixtures.

In: sources, a guard, a tokenizer. Out: shard directories and deterministic batches. May import: fulmen_core.
"""
