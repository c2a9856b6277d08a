"""The options of `fulmen serve` that encrypt its connections."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.errors import UserError

if TYPE_CHECKING:
    from fulmen_serving.tls import TlsFiles


def add_tls_options(parser: ArgumentParser) -> None:
    """Add them."""
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate (PEM, chain included)"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key; SIGHUP reads both again")
    parser.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="let in only clients with a certificate of these authorities"
    )


def tls_files(args: Namespace) -> TlsFiles | None:
    """Return what the arguments name; None if they name nothing.

    Raises:
        UserError: a part is missing.
    """
    from fulmen_serving.tls import TlsFiles

    if args.tls_cert is None and args.tls_key is None and args.tls_client_ca is None:
        return None
    if args.tls_cert is None or args.tls_key is None:
        missing = "--tls-cert" if args.tls_cert is None else "--tls-key"
        raise UserError(f"there is no {missing}", remedy="TLS needs a certificate (--tls-cert) and its key (--tls-key)")
    return TlsFiles(args.tls_cert, args.tls_key, args.tls_client_ca)
