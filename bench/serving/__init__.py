"""Parts of `bench/serve.py`: servers as processes, each started, found ready and stopped.

In: an environment, a model folder, cores. Out: a URL. May import: the standard library and `inference`.
"""
