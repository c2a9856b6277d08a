"""TLS of the server: a certificate, its key, and whose certificates clients must show. Faults are sentences.

Source: https://docs.python.org/3/library/ssl.html#ssl.SSLContext.load_cert_chain; the oldest version is TLS 1.2.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from fulmen_core.errors import UserError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of a server's TLS, all PEM.

    Attributes:
        certificate: the server's certificate, then those between it and a root.
        key: its private key, without a passphrase.
        client_ca: only clients whose certificate one of these authorities signed may connect; None: any client may.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            UserError: one cannot be read or is not what it should be, or certificate and key are no pair.
        """
        for path, option in ((self.certificate, "--tls-cert"), (self.key, "--tls-key")):
            _check_readable(path, option)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        _check_certificates(self.certificate, "--tls-cert")
        self._load(context)
        if self.client_ca is not None:
            _check_readable(self.client_ca, "--tls-client-ca")
            _check_certificates(self.client_ca, "--tls-client-ca")
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def reload(self, context: ssl.SSLContext) -> None:
        """Read certificate and key again into `context`; new connections use them. A client CA stays as it was.

        Raises:
            UserError: as `context`; `context` is then unchanged.
        """
        self.context()  # a pair that does not fit would leave half of itself behind
        self._load(context)

    def _load(self, context: ssl.SSLContext) -> None:
        def no_passphrase() -> str:
            raise UserError(
                f"the private key {self.key} is encrypted", remedy="give one without a passphrase to --tls-key"
            )

        try:
            context.load_cert_chain(self.certificate, self.key, no_passphrase)
        except ssl.SSLError as error:
            if "mismatch" in str(error).replace("_", " ").lower():
                raise UserError(
                    f"the private key {self.key} does not belong to the certificate {self.certificate}",
                    remedy="give a pair made together; the server's own certificate stands first in its file",
                ) from None
            raise UserError(f"{self.key} holds no private key in PEM", remedy="check --tls-key") from None


def _check_readable(path: Path, option: str) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})", remedy=f"check {option}") from None


def _check_certificates(path: Path, option: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise UserError(f"{path} holds no certificate in PEM", remedy=f"check {option}") from None
