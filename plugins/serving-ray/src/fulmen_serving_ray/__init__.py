"""Several replicas of a Fulmen server behind one address, on Ray Serve.

In: a model directory and a Ray cluster. Out: `fulmen serve-ray`. May import: fulmen_core, fulmen_serving, ray.
`prefix_memory` and `affinity` decide, without Ray; `router`, `replica` and `ingress` are Ray's parts.
"""
