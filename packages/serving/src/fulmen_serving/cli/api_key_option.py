"""The option `--api-key` of commands that talk to a server."""

from __future__ import annotations

from argparse import ArgumentParser

from fulmen_core.cli import context


def add_api_key_option(parser: ArgumentParser) -> None:
    """Add ``--api-key``."""
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="sent to the server; default: FULMEN_API_KEY, which hides it from whoever lists processes",
    )


def api_key(given: str | None) -> str:
    """The key that was given, else that of the environment; empty if there is none."""
    return context.settings().api_key.get_secret_value() if given is None else given
