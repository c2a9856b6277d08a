"""The claim that no secret is logged or printed: not a key, not a password, not a private key, not what people say.

Everything is gathered at the level debug and searched for everything that was secret.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from urllib.parse import quote, urlsplit

import httpx
import pytest
import trustme

from fulmen_core.cli import context, main
from fulmen_serving.api.edge import Edge
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.platform import Platform

PATH = "/v1/chat/completions"
ADMIN = "an-admin-key-of-many-characters"
WRONG = "fm-" + "w" * 43
PASSWORD = "pass/word@of?the&database"
SAID = "what only I may read"


def provoke(url: str, model: str, secrets: list[str], verify: object = True) -> list[str]:
    """Send the secrets where they belong and where they do not; return what the server answered elsewhere."""
    said = []
    with httpx.Client(base_url=url, verify=verify, timeout=30) as client:

        def send(method: str, path: str, **fields: object) -> None:
            with contextlib.suppress(httpx.TransportError):  # a refusal may close the connection while we still write
                answer = client.request(method, path, **fields)
                if not any(quote(given) in path for given in secrets):
                    said.append(answer.text + str(answer.headers))

        for given in secrets:
            for path in (PATH, "/v1/none", "/admin/v1/keys", "/admin/v1/none", f"/admin/v1/keys/{quote(given)}/revoke"):
                for method in ("GET", "POST"):
                    send(method, path, headers={"Authorization": f"Bearer {given}"})
            send("GET", PATH, params={"api_key": given})
            send("GET", "/readyz", headers={"Authorization": f"Basic {given}", "Cookie": given})
            send("POST", PATH, headers={"x-api-key": given, "traceparent": given})
        good = {"Authorization": f"Bearer {secrets[0]}"}
        talk = [{"role": "user", "content": SAID}]
        for stream in (False, True):
            body = {"model": model, "messages": talk, "max_tokens": 4, "stream": stream}
            client.post(PATH, headers=good, json=body)  # may answer with what was said
        for path in ("/v1/messages", "/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/moderations"):
            body = {"model": model, "messages": talk, "max_tokens": 4}
            if path != "/v1/messages":
                body = {"model": model, "prompt" if path == "/v1/completions" else "input": SAID}
            client.post(path, headers=good, json=body)
        send("POST", PATH, headers=good, content=json.dumps({"messages": talk}) + SAID)
        send("GET", "/metrics")
    return said


def held(texts: list[str], secrets: list[str]) -> list[tuple[str, str]]:
    """Where a secret, or most of it, stands; what identifies a key on purpose are its first characters."""
    return [(secret, text) for secret in secrets for text in texts if secret[12:] in text]


def test_a_server_driven_with_every_kind_of_secret_logs_none_at_debug(kit, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)  # of every library, not only what the command line would show
    platform = Platform(Database(str(tmp_path / "p.db")))
    secret, _ = platform.keys.create("ci")
    secrets = [secret, WRONG, ADMIN, SAID]
    edge = Edge(platform, admin_key=ADMIN)
    with kit.service(guard=kit.WordGuard(fails="output")) as service, kit.server(service, edge=edge) as url:
        said = provoke(url, "parrot", secrets)
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port)) as connection:  # no HTTP at all
            connection.sendall(f"{secret} {WRONG}\r\n\r\n".encode())
            connection.recv(1000)
        sound, service.open = service.open, lambda *_: 1 / 0
        with contextlib.suppress(httpx.TransportError):
            provoke(url, "parrot", [secret])  # a defect: its traceback is logged
        service.open = sound
    platform.close()
    logged = [caplog.handler.format(record) for record in caplog.records if not record.name.startswith("http")]
    for fault in ("ZeroDivisionError", "the detector broke"):
        assert any(fault in text for text in logged)
    assert held([*said, *logged], secrets) == []


@pytest.fixture
def postgresql(postgresql_server) -> str:
    """The URL of a real PostgreSQL, with a password: it trusts whoever comes, so any will do."""
    import psycopg

    name = f"secrets_{time.time_ns()}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgresql_server.replace("postgres@/postgres", f"postgres:{quote(PASSWORD, safe='')}@/{name}")


def test_a_whole_process_prints_none_at_debug(postgresql, nano_directory, tmp_path):
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    pair.cert_chain_pems[0].write_to_path(certificate)
    pair.private_key_pem.write_to_path(key)
    environment = os.environ | {"FULMEN_PLATFORM": postgresql, "FULMEN_ADMIN_KEY": ADMIN, "FULMEN_API_KEY": WRONG}
    fulmen = [sys.executable, "-m", "fulmen_core", "--debug"]
    create = [*fulmen, "keys", "create", "ci"]
    made = subprocess.run(create, env=environment, capture_output=True, text=True, check=True)
    secret = made.stdout.strip().splitlines()[-1]
    serve = ["--threads", "1", "serve", "--model", str(nano_directory), "--port", "0", "--no-guard"]
    tls = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with (tmp_path / "printed").open("wb") as printed:
        served = subprocess.Popen([*fulmen, *serve, *tls], env=environment, stdout=printed, stderr=printed)
    try:
        read = (tmp_path / "printed").read_text
        deadline = time.monotonic() + 60
        while "Serving " not in read():
            assert served.poll() is None, read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        url = read().split(" on ")[1].split()[0]
        answered = provoke(url, "nano", [secret, WRONG, ADMIN, SAID], verify=trusting)
        key.write_text("no key any more")
        served.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        served.send_signal(signal.SIGTERM)
        assert served.wait(30) == 0
    finally:
        served.kill()
    assert "not read again" in read()
    private = pair.private_key_pem.bytes().decode().splitlines()[1:-1]
    hidden = [secret, WRONG, ADMIN, SAID, " " * 12 + PASSWORD, " " * 12 + quote(PASSWORD, safe=""), *private]
    assert held([read(), made.stderr, *answered], hidden) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--platform", "postgresql://fulmen:{}@127.0.0.1:1/none"],
        ["--platform", "postgresql://fulmen:{}@no.such.host.invalid/none"],
        ["--platform", "postgresql://fulmen:{}@127.0.0.1:1/none?nonsense=1"],
        ["--platform", "postgresql://fulmen:{}@127.0.0.1:port/none"],
        ["--platform", "mysql://fulmen:{}@127.0.0.1/none"],
        ["--platfrom=postgresql://fulmen:{}@127.0.0.1/none"],
        ["postgresql://fulmen:{}@127.0.0.1/none"],
        ["--port", "postgresql://fulmen:{}@127.0.0.1/none"],
        ["--admin-key={}"],
    ],
)
@pytest.mark.parametrize("password", ["hunter2hunter2", quote(PASSWORD, safe="")])
def test_a_fault_of_the_platform_never_shows_its_password(arguments, password, nano_directory, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", printed)
    given = [argument.format(password) for argument in arguments]
    assert main(["--debug", "serve", "--model", str(nano_directory), "--no-guard", *given]) == 2
    everything = printed.getvalue() + caplog.text
    assert "fulmen: error: " in everything
    assert password not in everything
    assert "hunter2" not in everything
    assert PASSWORD not in everything


def test_settings_that_are_shown_hide_what_is_secret(monkeypatch):
    for name in ("FULMEN_PLATFORM", "FULMEN_ADMIN_KEY", "FULMEN_API_KEY"):
        monkeypatch.setenv(name, f"postgresql://fulmen:{WRONG}@host/none")
    shown = repr(context.settings()) + context.settings().model_dump_json()
    assert WRONG not in shown
