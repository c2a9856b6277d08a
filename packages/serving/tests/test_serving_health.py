"""Claims about `/healthz` and `/readyz`: what an orchestrator restarts, and what it sends requests to."""

from __future__ import annotations

import httpx


def test_a_server_is_alive_and_ready_and_the_former_names_are_gone(kit):
    with kit.service() as service, kit.server(service) as url:
        assert httpx.get(url + "/healthz").json() == {"status": "ok"}
        assert httpx.get(url + "/readyz").json() == {"status": "ready"}
        assert {httpx.get(url + path).status_code for path in ("/health", "/ready")} == {404}
        assert {"/healthz", "/readyz"} <= httpx.get(url + "/openapi.json").json()["paths"].keys()


def test_a_draining_server_is_alive_and_not_ready(kit):
    with kit.service() as service, kit.server(service) as url:
        service.engine.begin_drain()
        assert httpx.get(url + "/healthz").status_code == 200
        assert httpx.get(url + "/readyz").json() == {"status": "stopping"}


def test_a_thread_of_the_engine_that_ended_makes_the_server_dead(kit):
    with kit.service() as service, kit.server(service) as url:
        service.engine.close()
        health = httpx.get(url + "/healthz")
        assert (health.status_code, health.json()["reason"]) == (503, "the engine has ended")
        assert httpx.get(url + "/readyz").status_code == 503
