"""The terminal chat: a conversation with a partner, which is a service in this process or a server elsewhere.

In: lines of text. Out: streamed answers. May import: `fulmen_serving.service` and below, httpx.
"""
