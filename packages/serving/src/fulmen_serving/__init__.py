"""A continuous-batching engine behind the OpenAI-compatible API, guarded by RAISE."""
