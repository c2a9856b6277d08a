"""The OpenAI-compatible HTTP API over one `ChatService`.

In: HTTP requests. Out: JSON and server-sent events in OpenAI's shapes; every refusal is an OpenAI error object.
May import: FastAPI, pydantic, `fulmen_serving.service` and below; nothing imports it but `server` and the command line.
"""
