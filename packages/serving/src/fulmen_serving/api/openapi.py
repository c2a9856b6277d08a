"""``/openapi.json``: what each route takes, answers and refuses, and with which key.

FastAPI writes the paths and the parameters. What it cannot know is added here: the answers of routes that write their
bodies by hand, the refusals, which are alike everywhere, and the keys.
Source: https://spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fulmen_serving.api import answer_schemas as answers
from fulmen_serving.api.anthropic_error import MESSAGES_PATH
from fulmen_serving.api.key_gate import ADMIN_PREFIX, needs_key

Schema = dict[str, Any]

_REF = "#/components/schemas/"

#: The 200 of a path, by any of these shapes.
ANSWERS: Mapping[str, tuple[type[BaseModel], ...]] = {
    "/v1/chat/completions": (answers.ChatCompletion,),
    "/v1/server_tools": (answers.ServerToolList,),
    "/v1/completions": (answers.TextCompletion,),
    "/v1/messages": (answers.Message,),
    "/v1/messages/count_tokens": (answers.MessageTokenCount,),
    "/v1/responses": (answers.Response,),
    "/v1/embeddings": (answers.EmbeddingList,),
    "/v1/moderations": (answers.Moderation,),
    "/v1/models": (answers.OpenAIModelList, answers.AnthropicModelList),
    "/v1/models/{name}": (answers.OpenAIModel, answers.AnthropicModel),
    "/tokenize": (answers.Tokens,),
    "/detokenize": (answers.Detokenized,),
    "/healthz": (answers.Health,),
    "/readyz": (answers.Health,),
}
#: Paths whose answer is a stream of events for a request with ``stream: true``.
STREAMED = {"/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"}
#: Paths that answer 503 in the shape of their 200.
HEALTH = {"/healthz", "/readyz"}

_MEANINGS = {
    400: "The request is at fault; the message names the field.",
    401: "There is no API key, or it is unknown, revoked or expired.",
    403: "This API key may not do that.",
    404: "There is no such model, or what it needs is not served.",
    408: "The request body did not arrive in time.",
    413: "The request body is too large.",
    429: "The server is full, or a limit or quota of the key is reached.",
    500: "The server, its model or its guard failed.",
    503: "The server is stopping or failed, or its database cannot be asked.",
    504: "The request took longer than it may.",
}
_RETRY = {429, 503}


def publish(app: FastAPI, *, keyed: bool, timed: bool) -> None:
    """Make `app` publish a true document of the routes that it has when it is first asked.

    Args:
        app: the application.
        keyed: whether an API key is demanded.
        timed: whether a request's time is limited.
    """

    def document() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app, keyed=keyed, timed=timed)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's way to replace it


def describe(app: FastAPI, *, keyed: bool, timed: bool) -> Schema:
    """Return the document; see `publish`."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    shapes = {shape for several in ANSWERS.values() for shape in several}
    shapes |= {answers.OpenAIError, answers.AnthropicError}
    ordered = sorted(shapes, key=lambda shape: shape.__name__)
    _, defined = models_json_schema([(shape, "validation") for shape in ordered], ref_template=_REF + "{model}")
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {}) | defined["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own answer to a fault, which is never given
        schemas.pop(name, None)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _hoist_definitions(operation, schemas)
            _add_answers(operation, path)
            demands_key = keyed and (needs_key(method.upper(), path) or path.startswith(ADMIN_PREFIX))
            _add_refusals(operation, path, keyed=demands_key, timed=timed)
            if demands_key:
                operation["security"] = [{"bearer": []}, {"x-api-key": []}]
    components["schemas"] = dict(sorted(schemas.items()))
    if keyed:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
    return document


def _add_answers(operation: Schema, path: str) -> None:
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    shapes = ANSWERS.get(path)
    if path.startswith("/v1/models"):
        operation.setdefault("parameters", []).append(
            {
                "name": "anthropic-version",
                "in": "header",
                "description": "Any value asks for Anthropic's shapes.",
                "schema": {"type": "string"},
            }
        )
    if path == "/metrics":
        responses["200"] = {
            "description": "Prometheus text.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    if shapes is None:
        return
    content: Schema = {"application/json": {"schema": _any_of(shapes)}}
    if path in STREAMED:
        content["text/event-stream"] = {"schema": {"description": "The events of the protocol, for stream: true."}}
    responses["200"] = {"description": "The answer.", "content": content}
    if path in HEALTH:
        responses["503"] = {"description": "Not now.", "content": {"application/json": {"schema": _any_of(shapes)}}}


def _add_refusals(operation: Schema, path: str, *, keyed: bool, timed: bool) -> None:
    statuses = {500}
    if "requestBody" in operation:
        statuses |= {400, 404, 408, 413, 429, 503}
    if "{" in path:
        statuses.add(404)
    if path.startswith(ADMIN_PREFIX):
        statuses |= {400, 403, 503}
    if keyed:
        statuses |= {401, 429, 503}
    if timed:
        statuses.add(504)
    shapes: tuple[type[BaseModel], ...] = (answers.OpenAIError,)
    if path.startswith(MESSAGES_PATH):
        shapes = (answers.AnthropicError,)
    elif path.startswith("/v1/models"):
        shapes = (answers.OpenAIError, answers.AnthropicError)
    for status in sorted(statuses):
        refusal: Schema = {
            "description": _MEANINGS[status],
            "content": {"application/json": {"schema": _any_of(shapes)}},
        }
        if status in _RETRY:
            seconds = {"type": "integer", "minimum": 1}
            refusal["headers"] = {"Retry-After": {"description": "Seconds until it is worth it.", "schema": seconds}}
        operation["responses"].setdefault(str(status), refusal)


def _any_of(shapes: tuple[type[BaseModel], ...]) -> Schema:
    refs = [{"$ref": _REF + shape.__name__} for shape in shapes]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def _hoist_definitions(node: Any, schemas: Schema) -> None:
    """Move the definitions that a body brought along to where its references look for them: at the root.

    Raises:
        ValueError: two bodies define one name differently.
    """
    if isinstance(node, list):
        for one in node:
            _hoist_definitions(one, schemas)
    if not isinstance(node, dict):
        return
    for name, schema in node.pop("$defs", {}).items():
        if schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two schemas have the name {name}")
    for one in node.values():
        _hoist_definitions(one, schemas)
