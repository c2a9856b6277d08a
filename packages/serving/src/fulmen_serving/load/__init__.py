"""A load generator for OpenAI-compatible servers: traffic in, latencies, throughput and errors out.

In: a URL and a description of the load. Out: a report of plain JSON types. May import: httpx, numpy, `fulmen_core`;
nothing of the engine, so that what is measured and what measures share no code.
"""
