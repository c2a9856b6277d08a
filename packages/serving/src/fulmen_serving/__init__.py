"""A continuous-batching engine behind the OpenAI-compatible API, guarded by RAISE.

In: a model directory, a backend and a guard from the registry. Out: `fulmen serve` and `fulmen chat`.
May import: fulmen_core, FastAPI, uvicorn, httpx; never a backend or a plugin by name.
"""
