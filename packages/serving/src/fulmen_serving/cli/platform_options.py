"""The option `--platform`, and the database that it names."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import TYPE_CHECKING

from fulmen_core.cli import context
from fulmen_core.errors import UserError

if TYPE_CHECKING:
    from fulmen_serving.platform.database import Database


def add_platform_option(parser: ArgumentParser, what: str) -> None:
    """Add ``--platform``; `what` says what the database is for."""
    parser.add_argument(
        "--platform",
        metavar="URL",
        help=f"{what}: a file for SQLite, or a postgresql:// URL; default: FULMEN_PLATFORM, which hides a password "
        "from whoever lists processes",
    )


def open_database(given: str | None) -> Database | None:
    """Open what ``--platform`` or the environment names; None if neither names anything.

    Raises:
        UserError: SQLAlchemy is not installed, or the database cannot be opened.
    """
    place = given if given is not None else context.settings().platform.get_secret_value()
    if given == "":
        raise UserError("--platform is empty", remedy="give a file, or a postgresql:// URL")
    if not place:
        return None
    try:
        from fulmen_serving.platform.database import Database
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "sqlalchemy":
            raise
        raise UserError(
            "API keys need SQLAlchemy, which is not installed", remedy="pip install 'fulmen-serving[platform]'"
        ) from None
    return Database(place)


def required_database(given: str | None) -> Database:
    """As `open_database`, where there must be one.

    Raises:
        UserError: also if nothing names a database.
    """
    database = open_database(given)
    if database is None:
        raise UserError(
            "there is no --platform", remedy="give the database of the server, e.g. platform.db, or set FULMEN_PLATFORM"
        )
    return database
