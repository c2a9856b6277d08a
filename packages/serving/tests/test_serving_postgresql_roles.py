"""The claim that the server needs no superuser: what the documentation grants is enough, and all of it is needed."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import openai
import psycopg
import pytest

from fulmen_core.cli import main
from fulmen_serving.api.edge import Edge
from fulmen_serving.platform.database import Database, DatabaseFailed
from fulmen_serving.platform.platform import Platform

PAGE = Path(__file__).parents[3] / "docs/how-to/keys-and-usage.md"


class Roles:
    """A database of its own whose roles have exactly what the documentation gives them."""

    def __init__(self, administrator: str) -> None:
        self.suffix = f"_{time.time_ns()}"
        self._administrator = administrator
        roles, grants = (self._own(block) for block in re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL))
        self.grants = grants
        self.run(administrator, roles)

    def url(self, role: str) -> str:
        names = f"{role}{self.suffix}:secret@", f"/fulmen{self.suffix}"
        return re.sub(r"postgres@(.*?)/postgres", rf"{names[0]}\1{names[1]}", self._administrator)

    def run(self, url: str, statements: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in filter(str.strip, statements.split(";")):
                connection.execute(statement)

    def _own(self, statements: str) -> str:
        named = re.sub(r"\b(fulmen_owner|fulmen_server)\b", rf"\1{self.suffix}", statements)
        return re.sub(r"\bDATABASE fulmen\b", f"DATABASE fulmen{self.suffix}", named)


@contextlib.contextmanager
def opened(url: str):
    platform = Platform(Database(url))
    try:
        yield platform
    finally:
        platform.close()


@pytest.fixture
def roles(postgresql_server) -> Roles:
    if "postgres@" not in postgresql_server:
        pytest.skip("making roles needs the tests' own PostgreSQL")
    return Roles(postgresql_server)


def test_the_documented_grants_are_enough_for_a_whole_server(kit, roles):
    Database(roles.url("fulmen_owner")).close()
    roles.run(roles.url("fulmen_owner"), roles.grants)
    with opened(roles.url("fulmen_server")) as platform:
        with psycopg.connect(roles.url("fulmen_server")) as connection:
            told = connection.execute("SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = user")
            assert told.fetchone() == (False, False, False)
        secret, key = platform.keys.create("ci", "acme")
        platform.keys.set_quota("acme", 1000)
        with (
            kit.service() as service,
            kit.server(service, edge=Edge(platform)) as url,
            openai.OpenAI(base_url=url + "/v1", api_key=secret, max_retries=0) as client,
        ):
            asked = {"model": "parrot", "messages": [{"role": "user", "content": "hello"}]}
            usage = client.chat.completions.create(**asked).usage
        assert platform.meter.flush()
        [row] = platform.usage.report(organisation="acme")
        assert row.used.completion_tokens == usage.completion_tokens
        assert platform.keys.list()[0].last_used is not None
        assert platform.keys.revoke(key.id).state(0) == "revoked"


def test_the_server_s_role_can_neither_destroy_nor_forge(roles):
    Database(roles.url("fulmen_owner")).close()
    roles.run(roles.url("fulmen_owner"), roles.grants)
    for statement in [
        "DELETE FROM fulmen_usage",
        "TRUNCATE fulmen_keys",
        "DROP TABLE fulmen_keys",
        "ALTER TABLE fulmen_keys ADD x INTEGER",
        "UPDATE fulmen_schema SET version = 9",
        "CREATE TABLE mine (x INTEGER)",
    ]:
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            psycopg.connect(roles.url("fulmen_server")) as connection,
        ):
            connection.execute(statement)


def test_each_grant_is_needed(roles):
    owner, server = roles.url("fulmen_owner"), roles.url("fulmen_server")
    Database(owner).close()
    with pytest.raises(DatabaseFailed, match="grant this one what it needs"):
        Database(server)  # nothing is granted yet
    statements = [statement for statement in roles.grants.split(";") if statement.strip()]
    assert len(statements) == 3
    for left_out in range(len(statements)):
        roles.run(owner, ";".join(statement for index, statement in enumerate(statements) if index != left_out))
        with pytest.raises(DatabaseFailed, match="grant this one what it needs"), opened(server) as platform:
            platform.keys.create("ci", f"organisation {left_out}")
        for statement in statements:
            roles.run(owner, statement.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))


def test_a_role_that_may_not_make_the_tables_is_told_what_to_do(roles):
    with pytest.raises(DatabaseFailed, match=r"permission denied for schema public.*may create tables") as refused:
        Database(roles.url("fulmen_server"))
    assert "secret" not in str(refused.value)


def test_who_may_only_read_can_look_at_keys_and_usage(roles, capsys, monkeypatch):
    owner = roles.url("fulmen_owner")
    with opened(owner) as platform:
        _, key = platform.keys.create("ci")
    reader = f"fulmen_server{roles.suffix}"
    roles.run(owner, f"GRANT SELECT ON fulmen_schema, fulmen_organisations, fulmen_keys, fulmen_usage TO {reader}")
    monkeypatch.setenv("FULMEN_PLATFORM", roles.url("fulmen_server"))
    assert main(["keys", "list"]) == 0
    assert key.prefix in capsys.readouterr().out
    assert main(["usage"]) == 0
    assert main(["keys", "revoke", key.id]) == 2
    assert "permission denied for table fulmen_keys" in capsys.readouterr().err
