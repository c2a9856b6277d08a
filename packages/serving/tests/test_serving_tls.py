"""Claims about TLS: encrypted for who trusts the certificate, closed to strangers, changed without a restart."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from fulmen_core.cli import main
from fulmen_core.errors import UserError
from fulmen_serving.tls import TlsFiles


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_pair(authority: trustme.CA, folder: Path) -> tuple[Path, Path]:
    """A new certificate for 127.0.0.1 with its chain, and its key."""
    made = authority.issue_cert("127.0.0.1")
    certificate, key = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return certificate, key


def trusting(authority: trustme.CA, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    return context


def serial(url: str, context: ssl.SSLContext) -> str:
    """Of the certificate that a new connection is shown."""
    parts = urlsplit(url)
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=parts.hostname) as connection,
    ):
        return connection.getpeercert()["serialNumber"]


def test_an_answer_is_streamed_over_tls_to_who_trusts_the_authority_and_to_nobody_in_clear(kit, authority, tmp_path):
    tls = TlsFiles(*write_pair(authority, tmp_path))
    body = {"model": "parrot", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    with kit.service() as service, kit.server(service, tls=tls) as url:
        assert url.startswith("https://")
        with httpx.Client(verify=trusting(authority)) as client:
            answer = client.post(url + "/v1/chat/completions", json=body)
            assert answer.text.endswith("data: [DONE]\n\n")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(url + "/healthz")
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http") + "/healthz")
        old = trusting(authority)
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            serial(url, old)


def test_with_a_client_authority_only_its_clients_get_in(kit, authority, tmp_path):
    clients = trustme.CA()
    roots = tmp_path / "clients.pem"
    clients.cert_pem.write_to_path(roots)
    tls = TlsFiles(*write_pair(authority, tmp_path), roots)
    with kit.service() as service, kit.server(service, tls=tls) as url:
        member, stranger = clients.issue_cert("me"), trustme.CA().issue_cert("me")
        with httpx.Client(verify=trusting(authority, member)) as client:
            assert client.get(url + "/readyz").status_code == 200
        for shown in (None, stranger):
            with httpx.Client(verify=trusting(authority, shown)) as client, pytest.raises(httpx.HTTPError):
                client.get(url + "/readyz")


def test_sighup_shows_new_connections_the_new_certificate_and_a_wrong_one_changes_nothing(
    kit, authority, tmp_path, nano_directory
):
    certificate, key = write_pair(authority, tmp_path)
    options = ["--port", "0", "--no-guard", "--tls-cert", str(certificate), "--tls-key", str(key)]
    with kit.process("--threads", "1", "serve", "--model", str(nano_directory), *options) as (served, url, _):
        context = trusting(authority)
        first = serial(url, context)
        with httpx.Client(verify=context) as client:
            assert client.get(url + "/healthz").status_code == 200  # and its connection stays open
            write_pair(authority, tmp_path)
            served.send_signal(signal.SIGHUP)
            assert "was read again" in served.stderr.readline()
            second = serial(url, context)
            assert second != first
            key.write_bytes(authority.issue_cert("127.0.0.1").private_key_pem.bytes())
            served.send_signal(signal.SIGHUP)
            assert "does not belong to the certificate" in served.stderr.readline()
            assert serial(url, context) == second
            assert client.get(url + "/healthz").status_code == 200
        served.send_signal(signal.SIGTERM)
        assert served.wait(20) == 0


@pytest.fixture
def files(authority, tmp_path):
    """Good and bad files by name."""
    certificate, key = write_pair(authority, tmp_path)
    other = authority.issue_cert("127.0.0.1").private_key_pem
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"hunter2")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    made = {"cert": certificate, "key": key}
    for name, content in {
        "other": other.bytes(),
        "encrypted": plain.private_bytes(*form, secret),
        "text": b"no PEM at all",
    }.items():
        made[name] = tmp_path / name
        made[name].write_bytes(content)
    return made | {"none": tmp_path / "none", "folder": tmp_path}


@pytest.mark.parametrize(
    ("cert", "key", "client_ca", "words"),
    [
        ("none", "key", None, r"none cannot be read \(No such file or directory\): check --tls-cert"),
        ("cert", "folder", None, r"cannot be read \(Is a directory\): check --tls-key"),
        ("text", "key", None, "text holds no certificate in PEM: check --tls-cert"),
        ("key", "cert", None, "server.key holds no certificate in PEM: check --tls-cert"),
        ("cert", "text", None, "text holds no private key in PEM: check --tls-key"),
        ("cert", "cert", None, "server.pem holds no private key in PEM: check --tls-key"),
        ("cert", "other", None, "other does not belong to the certificate"),
        ("cert", "encrypted", None, "encrypted is encrypted: give one without a passphrase"),
        ("cert", "key", "key", "server.key holds no certificate in PEM: check --tls-client-ca"),
    ],
)
def test_files_that_do_not_fit_are_one_sentence(files, cert, key, client_ca, words):
    chosen = TlsFiles(files[cert], files[key], None if client_ca is None else files[client_ca])
    with pytest.raises(UserError, match=words):
        chosen.context()


def test_the_command_line_names_the_missing_half_and_reads_no_model_for_it(files, nano_directory, capsys, monkeypatch):
    monkeypatch.setattr("fulmen_serving.loading.load_service", lambda *_: pytest.fail("the model was read"))
    model = ["serve", "--model", str(nano_directory), "--no-guard", "--port", "0"]
    for options, words in [
        (["--tls-cert", str(files["cert"])], "there is no --tls-key"),
        (["--tls-key", str(files["key"])], "there is no --tls-cert"),
        (["--tls-client-ca", str(files["cert"])], "there is no --tls-cert"),
        (["--tls-cert", str(files["cert"]), "--tls-key", str(files["other"])], "does not belong to the certificate"),
    ]:
        assert main([*model, *options]) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]
