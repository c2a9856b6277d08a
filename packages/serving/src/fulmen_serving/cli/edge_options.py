"""The options of `fulmen serve` that say who may call it, and how large and how long a request may be."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen_core.cli import context
from fulmen_core.cli.output import note
from fulmen_core.errors import UserError
from fulmen_core.suggestions import closest
from fulmen_serving.cli.platform_options import add_platform_option, open_database
from fulmen_serving.cli.trace_options import add_trace_options, open_tracer

if TYPE_CHECKING:
    from fulmen_serving.api.edge import Edge


def add_edge_options(parser: ArgumentParser) -> None:
    """Add them."""
    add_platform_option(parser, "demand API keys that are in this database")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="TOML: what a million tokens cost, by model")
    parser.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this origin call the API, * for all; may be repeated",
    )
    parser.add_argument(
        "--max-body-bytes", type=int, metavar="N", default=2 << 20, help="size of a request body (%(default)s)"
    )
    parser.add_argument(
        "--request-seconds", type=float, metavar="N", help="the longest that a request may take; default: any time"
    )
    add_trace_options(parser)


@contextlib.contextmanager
def open_edge(args: Namespace, model: str) -> Iterator[Edge]:
    """Yield what the arguments and the environment say; when the block ends, all usage is written.

    Raises:
        UserError: an argument, the database or the price table does not fit.
    """
    from importlib.metadata import version

    from fulmen_serving.api.edge import Edge

    if args.max_body_bytes < 1:
        raise UserError(f"a body of {args.max_body_bytes} bytes holds nothing", remedy="give a larger --max-body-bytes")
    with contextlib.ExitStack() as stack:
        platform = None
        if (database := open_database(args.platform)) is not None:
            stack.callback(database.close)
            from fulmen_serving.platform.platform import Platform
            from fulmen_serving.platform.prices import load_prices

            prices = None if args.prices is None else load_prices(args.prices, base=model)
            platform = Platform(database, prices)
            stack.callback(platform.close)
        elif args.prices is not None:
            raise UserError("--prices without --platform has nothing to price", remedy="give --platform too")
        if (tracer := open_tracer(args, version("fulmen-serving"))) is not None:
            stack.callback(tracer.close)
        yield Edge(
            platform=platform,
            admin_key=context.settings().admin_key.get_secret_value(),
            cors_origins=tuple(args.cors_origin),
            request_seconds=args.request_seconds,
            tracer=tracer,
        )


def check_prices(edge: Edge, model: str) -> None:
    """Refuse a price table that names other models only: nothing would be priced.

    Raises:
        UserError: the table does not name `model`.
    """
    if edge.platform is not None and (known := edge.platform.prices.prices) and model not in known:
        near = closest(model, known)
        raise UserError(
            f"the price table has no price of the model {model!r} that is served",
            remedy=f"is [{near}] meant? --name says what the model is called" if near else "add a table for it",
        )


def warn_if_open(listener: socket.socket, edge: Edge) -> None:
    """Say so if others can reach a server that asks nobody for a key."""
    address = str(listener.getsockname()[0]).partition("%")[0]
    if edge.platform is None and not ipaddress.ip_address(address).is_loopback:
        note(
            f"fulmen: warning: {address} can be reached by other machines, and the server asks nobody for a key: "
            "give --platform to demand API keys"
        )
