"""Retrieval: documents in, passages with their source and place out, as a verb and as a tool of a served model.

An index is one SQLite file: full text (FTS5, bm25) and embeddings, fused by rank.
May import: fulmen_core, numpy, httpx.
"""
