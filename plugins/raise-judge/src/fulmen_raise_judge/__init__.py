"""A chat model as a judge: a text in, its verdict out as findings. Any OpenAI-compatible server.

In: a text, a conversation, the address of a server. Out: the detectors ``judge`` (what users say) and ``judge-answer``.
May import: fulmen_safety.
"""
