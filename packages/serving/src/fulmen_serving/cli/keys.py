"""`fulmen keys create|list|revoke|quota`: who may call a server, and how much."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fulmen_core.cli.arguments import parser
from fulmen_core.cli.output import note, print_json, print_table
from fulmen_core.errors import UserError
from fulmen_serving.cli.platform_options import add_platform_option, required_database

if TYPE_CHECKING:
    from fulmen_serving.platform.key_store import KeyStore


def run(argv: Sequence[str]) -> int:
    """Make, list or revoke keys, or set a quota.

    Raises:
        UserError: an argument or the database is at fault.
    """
    arguments = parser("fulmen keys", "make, list and revoke the API keys of a server", recipe=False, json=False)
    verbs = arguments.add_subparsers(dest="action", required=True, metavar="create|list|revoke|quota")
    create = _verb(verbs.add_parser("create", help="make a key", description="Make a key and show it, once."))
    create.add_argument("name", help="what the key is called, e.g. whose or what for")
    create.add_argument("--organisation", default="default", help="whose quota it uses; made if new (%(default)s)")
    create.add_argument("--expires", metavar="TIME", help="a time (2027-01-31) or a span (90d, 12h); default: never")
    create.add_argument("--requests-per-minute", type=int, metavar="N", help="default: no limit")
    create.add_argument("--tokens-per-minute", type=int, metavar="N", help="default: no limit")
    create.add_argument("--max-concurrent", type=int, metavar="N", help="requests at once; default: no limit")
    listed = _verb(verbs.add_parser("list", help="list the keys", description="List the keys, without their secrets."))
    listed.add_argument("--organisation", help="only those of this organisation")
    revoke = _verb(verbs.add_parser("revoke", help="revoke a key", description="Revoke a key, for ever."))
    revoke.add_argument("key", help="its id, or its prefix as `list` shows it")
    quota = _verb(verbs.add_parser("quota", help="set a quota", description="Set the quota of an organisation."))
    quota.add_argument("organisation", help="made if new")
    quota.add_argument("--tokens-per-month", metavar="N|none", required=True, help="of a calendar month in UTC")
    args = arguments.parse_args(argv)

    database = required_database(args.platform)
    try:
        from fulmen_serving.platform.key_store import KeyStore

        _ACTIONS[args.action](KeyStore(database), args)
    finally:
        database.close()
    return 0


def _verb(made: ArgumentParser) -> ArgumentParser:
    add_platform_option(made, "the database of the keys")
    made.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    return made


def _create(store: KeyStore, args: Namespace) -> None:
    from fulmen_serving.platform.key_store import KeyLimits
    from fulmen_serving.platform.moments import moment
    from fulmen_serving.platform.report import key_object

    limits = KeyLimits(args.requests_per_minute, args.tokens_per_minute, args.max_concurrent)
    expires = None if args.expires is None else moment(args.expires)
    secret, key = store.create(args.name, args.organisation, expires=expires, limits=limits)
    if args.json:
        print_json({"key": secret, **key_object(key)})
    else:
        print(secret)
        note(f"{key.id} of {key.organisation}: keep the key, it is stored as a hash and cannot be shown again")


def _list(store: KeyStore, args: Namespace) -> None:
    from fulmen_serving.platform.report import key_object

    found = [key_object(key) for key in store.list(args.organisation)]
    if args.json:
        print_json(found)
        return
    columns = ("id", "prefix", "name", "organisation", "state", "created", "expires", "last_used")
    rows = [[str(key[column] or "never") for column in columns] for key in found]
    print_table([column.replace("_", " ") for column in columns], rows, empty="There is no key.")


def _revoke(store: KeyStore, args: Namespace) -> None:
    from fulmen_serving.platform.report import key_object

    key = store.revoke(args.key)
    if args.json:
        print_json(key_object(key))
    else:
        print(f"{key.id} ({key.name}) is revoked")


def _quota(store: KeyStore, args: Namespace) -> None:
    asked = args.tokens_per_month
    if asked != "none" and not (asked.isascii() and asked.isdigit()):
        raise UserError(f"{asked!r} is no number of tokens", where="--tokens-per-month", remedy="give one, or none")
    tokens = None if asked == "none" else int(asked)
    store.set_quota(args.organisation, tokens)
    if args.json:
        print_json({"organisation": args.organisation, "tokens_per_month": tokens})
    else:
        print(f"{args.organisation} may use {'any number of' if tokens is None else tokens} tokens in a month")


_ACTIONS = {"create": _create, "list": _list, "revoke": _revoke, "quota": _quota}
