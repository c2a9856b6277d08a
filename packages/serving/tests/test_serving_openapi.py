"""Claims about the published OpenAPI document: whatever is sent, the server does what the document says."""

from __future__ import annotations

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from fulmen_serving.api.app import make_app
from fulmen_serving.api.edge import Edge
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.platform import Platform

ADMIN_KEY = "an-admin-key-for-the-tests-alone"
#: A schema cannot say what fits the context or the vocabulary, so a body that it allows may be refused with 400.
BEYOND_A_SCHEMA = [positive_data_acceptance]
#: What a body names as the model; nearly every answer would be 404 otherwise.
SERVED = {"/v1/moderations": "word"}


def check_every_operation(app, examples, key_of=None):
    """Send valid and invalid requests to every operation of `app`; each answer must be one that the document has."""

    def send(case):
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str) and len(case.body["model"]) != 1:
            case.body["model"] = SERVED.get(case.operation.path, "parrot")
        headers = {"Authorization": f"Bearer {key_of(case.operation.path)}"} if key_of else {}
        case.call_and_validate(headers=headers, excluded_checks=BEYOND_A_SCHEMA)

    bounded = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    operations = [result.ok() for result in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations()]
    for operation in operations:
        bounded(given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))(send))()
        if operation.body:  # a header or a path may be any text
            bounded(given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))(send))()
    return {operation.path for operation in operations}


@pytest.fixture(scope="module")
def service(kit):
    with kit.service(guard=kit.WordGuard(), waiting=64) as made:
        yield made


@pytest.fixture
def keyed(service, tmp_path):
    """An application that demands keys, and what opens a path of it."""
    platform = Platform(Database(str(tmp_path / "keys.db")))
    secret, _ = platform.keys.create("tests")
    yield (
        make_app(service, edge=Edge(platform=platform, admin_key=ADMIN_KEY, request_seconds=30)),
        lambda path: ADMIN_KEY if path.startswith("/admin/") else secret,
    )
    platform.close()


def test_an_open_server_does_what_it_says(service):
    paths = check_every_operation(make_app(service), 6)
    assert {"/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/models/{name}", "/metrics"} <= paths


def test_a_server_with_keys_does_what_it_says(keyed):
    app, key_of = keyed
    assert "/admin/v1/keys/{named}/revoke" in check_every_operation(app, 3, key_of)


@pytest.mark.slow
def test_servers_do_what_they_say_of_many_requests(service, keyed):
    check_every_operation(make_app(service), 250)
    check_every_operation(keyed[0], 100, keyed[1])


def test_the_document_says_which_key_each_path_wants(service, keyed):
    document = keyed[0].openapi()
    wanted = {"security": [{"bearer": []}, {"x-api-key": []}]}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            demands = path.startswith(("/v1/", "/admin/")) or "tokenize" in path
            assert {name: operation[name] for name in operation if name == "security"} == (wanted if demands else {})
            assert ("401" in operation["responses"]) is demands
            assert "504" in operation["responses"]
    open_document = make_app(service).openapi()
    assert "securitySchemes" not in open_document["components"]
    assert all("security" not in operation for path in open_document["paths"].values() for operation in path.values())


def test_every_reference_of_the_document_leads_somewhere(keyed):
    document = keyed[0].openapi()
    seen = []

    def walk(node):
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                seen.append(node["$ref"])
            for one in node.values():
                walk(one)
        elif isinstance(node, list):
            for one in node:
                walk(one)

    walk(document)
    assert seen
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(seen) == names
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_document_is_served(kit, service):
    with kit.server(service) as url:
        document = httpx.get(f"{url}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]["/v1/messages"]["post"]["responses"]) >= {"200", "400", "404", "413", "429", "503"}
