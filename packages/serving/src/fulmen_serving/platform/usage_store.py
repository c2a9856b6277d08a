"""Usage in the database: one row for each key, model and hour, added to and summed."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from fulmen_serving.platform.database import Database
from fulmen_serving.platform.key_store import existing_key, existing_organisation
from fulmen_serving.platform.schema import keys, organisations, usage

HOUR = 3600
_SUMS = ("requests", "prompt_tokens", "completion_tokens", "cost")


class UsageCell(NamedTuple):
    """Where usage is added: `hour` is the Unix second in which it began."""

    key_id: str
    model: str
    hour: int


class Usage(NamedTuple):
    """What was used; `cost` in 1 / `prices.UNIT`."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0

    def plus(self, other: Usage) -> Usage:
        """Return the sum."""
        return Usage(*(one + two for one, two in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Usage of a key and a model, in one hour or (`hour` is None) in the whole time asked for."""

    organisation: str
    key_id: str
    key: str
    model: str
    hour: int | None
    used: Usage


class UsageStore:
    """The usage in `database`. Every method may raise `UserError` because the database failed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = sqlite.insert if database.engine.dialect.name == "sqlite" else postgresql.insert

    def add(self, cells: Mapping[UsageCell, Usage], last_used: Mapping[str, int]) -> None:
        """Add usage, and note when keys were last used (key id to Unix seconds): all of it or nothing."""
        with self._database.write() as connection:
            # in one order everywhere: two servers that add to the same rows must not wait for each other
            for cell, used in sorted(cells.items()):
                row = self._insert(usage).values(**cell._asdict(), **used._asdict())
                summed = {name: usage.c[name] + row.excluded[name] for name in _SUMS}
                connection.execute(row.on_conflict_do_update(index_elements=list(UsageCell._fields), set_=summed))
            for key_id, when in sorted(last_used.items()):
                older = or_(keys.c.last_used.is_(None), keys.c.last_used < when)
                connection.execute(keys.update().where(keys.c.id == key_id, older).values(last_used=when))

    def tokens_since(self, organisation_id: int, hour: int) -> int:
        """Return the tokens, of prompts and answers, that an organisation used since the hour that begins at `hour`."""
        query = (
            select(func.coalesce(func.sum(usage.c.prompt_tokens + usage.c.completion_tokens), 0))
            .join(keys, usage.c.key_id == keys.c.id)
            .where(keys.c.organisation_id == organisation_id, usage.c.hour >= hour)
        )
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def report(
        self,
        *,
        key: str | None = None,
        organisation: str | None = None,
        since: int | None = None,
        hourly: bool = False,
    ) -> list[UsageRow]:
        """Return usage by organisation, key and model.

        Args:
            key: only of the key with that id or prefix.
            organisation: only of that organisation.
            since: only from the hour that holds this Unix second.
            hourly: a row for each hour instead of one for all.

        Raises:
            UserError: there is no such key or organisation.
        """
        by = [organisations.c.name, keys.c.id, keys.c.name, usage.c.model, *([usage.c.hour] if hourly else [])]
        query = (
            select(*by, *(func.sum(usage.c[name]) for name in _SUMS))
            .join(keys, usage.c.key_id == keys.c.id)
            .join(organisations, keys.c.organisation_id == organisations.c.id)
            .group_by(*by)
            .order_by(*by)
        )
        with self._database.read() as connection:
            if key is not None:
                query = query.where(keys.c.id == existing_key(connection, key))
            if organisation is not None:
                query = query.where(organisations.c.id == existing_organisation(connection, organisation))
            if since is not None:
                query = query.where(usage.c.hour >= since - since % HOUR)
            rows = [tuple(row) for row in connection.execute(query)]
        found = []
        for organisation_name, key_id, key_name, model, *rest in rows:
            hour = int(rest.pop(0)) if hourly else None
            used = Usage(*(int(value) for value in rest))  # PostgreSQL sums to decimals
            found.append(UsageRow(organisation_name, key_id, key_name, model, hour, used))
        return found


def month_of(now: float) -> int:
    """Return the Unix second in which the calendar month (UTC) of `now` began."""
    day = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return int(day.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())


def next_month_of(now: float) -> int:
    """Return the Unix second in which the next calendar month (UTC) begins."""
    return month_of(month_of(now) + 32 * 24 * HOUR)
