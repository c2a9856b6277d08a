"""Keys and organisations in the database: make, list, find, revoke, give a quota."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import Connection, Row, Select, or_, select

from fulmen_core.errors import UserError
from fulmen_core.suggestions import closest
from fulmen_serving.platform.api_key import ApiKey, new_secret, secret_hash, shown_prefix
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.schema import keys, organisations

DEFAULT_ORGANISATION = "default"
_MAX_LIMIT = 2**31 - 1
_MAX_QUOTA = 2**62


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits of one key; None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None


class KeyStore:
    """The keys in `database`. Every method may raise `UserError` because the database failed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        organisation: str = DEFAULT_ORGANISATION,
        *,
        expires: int | None = None,
        limits: KeyLimits | None = None,
    ) -> tuple[str, ApiKey]:
        """Make a key, and its organisation if it is new. The secret is returned here and can never be had again.

        Raises:
            UserError: a name, a limit or the time of expiry does not fit.
        """
        limits, now = limits or KeyLimits(), int(time.time())
        _check_name(name, "the name of a key")
        for what, value in (
            ("requests per minute", limits.requests_per_minute),
            ("tokens per minute", limits.tokens_per_minute),
            ("concurrent requests", limits.max_concurrent),
        ):
            if value is not None and not 1 <= value <= _MAX_LIMIT:
                raise UserError(f"{value} {what} do not lie between 1 and {_MAX_LIMIT}")
        if expires is not None and expires <= now:
            raise UserError("the key would expire in the past", remedy="name a time to come")
        secret, key_id = new_secret(), f"key_{secrets.token_hex(8)}"
        with self._database.write() as connection:
            connection.execute(
                keys.insert().values(
                    id=key_id,
                    name=name,
                    organisation_id=_organisation(connection, organisation, now),
                    prefix=shown_prefix(secret),
                    secret_hash=secret_hash(secret),
                    created=now,
                    expires=expires,
                    requests_per_minute=limits.requests_per_minute,
                    tokens_per_minute=limits.tokens_per_minute,
                    max_concurrent=limits.max_concurrent,
                )
            )
            [row] = connection.execute(_known().where(keys.c.id == key_id))
        return secret, _api_key(row)

    def list(self, organisation: str | None = None) -> list[ApiKey]:
        """Return the keys, oldest first, also those that can no longer be used.

        Raises:
            UserError: there is no such organisation.
        """
        query = _known().order_by(keys.c.created, keys.c.id)
        with self._database.read() as connection:
            if organisation is not None:
                query = query.where(keys.c.organisation_id == existing_organisation(connection, organisation))
            return [_api_key(row) for row in connection.execute(query)]

    def revoke(self, named: str) -> ApiKey:
        """Revoke the key with that id or shown prefix, for ever. One that is revoked already stays as it is.

        Raises:
            UserError: no key, or more than one, is named so.
        """
        with self._database.write() as connection:
            key_id = existing_key(connection, named)
            connection.execute(
                keys.update().where(keys.c.id == key_id, keys.c.revoked.is_(None)).values(revoked=int(time.time()))
            )
            [row] = connection.execute(_known().where(keys.c.id == key_id))
        return _api_key(row)

    def find(self, hashed: str) -> ApiKey | None:
        """Return the key whose secret has that hash, usable or not."""
        with self._database.read() as connection:
            row = connection.execute(_known().where(keys.c.secret_hash == hashed)).first()
        if row is None or not hmac.compare_digest(row.secret_hash, hashed):
            return None
        return _api_key(row)

    def set_quota(self, organisation: str, tokens_per_month: int | None) -> None:
        """Let an organisation, made if it is new, use so many tokens in a calendar month (UTC); None: any number.

        Raises:
            UserError: the name or the number does not fit.
        """
        if tokens_per_month is not None and not 0 <= tokens_per_month <= _MAX_QUOTA:
            raise UserError(f"a quota of {tokens_per_month} tokens does not lie between 0 and {_MAX_QUOTA}")
        with self._database.write() as connection:
            which = organisations.c.id == _organisation(connection, organisation, int(time.time()))
            connection.execute(organisations.update().where(which).values(tokens_per_month=tokens_per_month))


def existing_organisation(connection: Connection, name: str) -> int:
    """Return the id of an organisation.

    Raises:
        UserError: there is none of that name.
    """
    known = {row.name: row.id for row in connection.execute(select(organisations.c.id, organisations.c.name))}
    if name not in known:
        near = closest(name, known)
        raise UserError(f"there is no organisation {name!r}", remedy=f"did you mean {near!r}?" if near else "")
    return int(known[name])


def existing_key(connection: Connection, named: str) -> str:
    """Return the id of the key that is named by its id or its shown prefix.

    Raises:
        UserError: no key, or more than one, is named so.
    """
    query = select(keys.c.id).where(or_(keys.c.id == named, keys.c.prefix == named))
    found = list(connection.execute(query).scalars())
    if len(found) == 1:
        return str(found[0])
    if found:
        raise UserError(f"{len(found)} keys begin with {named!r}", remedy=f"name one by its id: {', '.join(found)}")
    # whoever pastes a whole secret must not see it in an error that goes into a log
    shown = named if len(named) <= 20 else "that id or prefix"
    raise UserError(f"there is no key {shown}", remedy="see `fulmen keys list`; a key is named by its id or prefix")


def _organisation(connection: Connection, name: str, now: int) -> int:
    _check_name(name, "the name of an organisation")
    query = select(organisations.c.id).where(organisations.c.name == name)
    if (found := connection.execute(query).scalar()) is None:
        connection.execute(organisations.insert().values(name=name, created=now))
        found = connection.execute(query).scalar_one()
    return int(found)


def _check_name(name: str, what: str) -> None:
    if not (1 <= len(name) <= 200 and name.isprintable() and name.strip() == name):
        raise UserError(f"{what} must have 1 to 200 printable characters, and no space at its ends")


def _known() -> Select[tuple[object, ...]]:
    return select(keys, organisations.c.name.label("organisation"), organisations.c.tokens_per_month).join(
        organisations, keys.c.organisation_id == organisations.c.id
    )


def _api_key(row: Row[tuple[object, ...]]) -> ApiKey:
    fields = dict(row._mapping)
    del fields["secret_hash"]
    return ApiKey(**fields)
