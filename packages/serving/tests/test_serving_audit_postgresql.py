"""Claims about RAISE's audit log in a real PostgreSQL, which this package's tests start."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fulmen_core.errors import UserError
from fulmen_safety.audit.chain import verify
from fulmen_safety.audit.pruning import duration, prune
from fulmen_safety.audit.store import open_store

WRITER = """
import sys
from pathlib import Path
from fulmen_safety.audit.store import open_store
store = open_store(sys.argv[1], Path())
for number in range(40):
    store.append({"time": "2026-01-01T00:00:00+00:00", "phase": "input", "action": str(number)})
"""


def body(text, days_ago=0):
    return {"time": (datetime.now(UTC) - timedelta(days=days_ago)).isoformat(), "phase": "input", "action": text}


@pytest.fixture
def url(postgresql_server):
    psycopg = pytest.importorskip("psycopg")
    name = f"audit_{time.time_ns()}"
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgresql_server.replace("/postgres?", f"/{name}?")


def test_records_are_chained_pruned_and_verified(url):
    store = open_store(url, Path())
    for number, age in enumerate((100, 95, 1, 0)):
        store.append(body(str(number), age))
    known = verify(store).head
    assert prune(store, duration("90d")) == 2
    report = verify(open_store(url, Path()), known)
    assert (report.records, report.pruned, report.faults) == (4, 2, ())
    store.close()
    store.append(body("after the connection was closed"))
    assert verify(store, known).faults == ()


def test_what_is_changed_behind_its_back_is_found(url):
    import psycopg

    store = open_store(url, Path())
    for number in range(4):
        store.append(body(str(number)))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute('UPDATE fulmen_audit SET record = replace(record, \'"action":"1"\', \'"action":"9"\')')
        assert verify(store).faults == ("record 2 was altered",)
        connection.execute("DELETE FROM fulmen_audit WHERE n > 2")
    assert any("its end was cut off" in fault for fault in verify(store).faults)


def test_processes_that_write_at_once_keep_one_chain(url):
    running = [subprocess.Popen([sys.executable, "-c", WRITER, url]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    report = verify(open_store(url, Path()))
    assert (report.records, report.faults) == (120, ())


def test_a_database_that_does_not_answer_is_named_without_its_password():
    with pytest.raises(UserError, match="cannot be written") as error:
        open_store("postgresql://fulmen:hunter2@127.0.0.1:1/none", Path())
    assert "hunter2" not in str(error.value)


def test_the_guard_records_in_it(url, tmp_path):
    from fulmen_core.registry import Registry

    policy = tmp_path / "policy.toml"
    policy.write_text(f'extends = "default"\n[audit]\npath = "{url}"\nkeep = "30d"\n')
    Registry.discover().guard("raise", policy).judge_input([{"role": "user", "content": "mail ada@lovelace.org"}])
    (record,) = open_store(url, Path()).records()
    assert (record["phase"], record["action"]) == ("input", "rewrite")
    assert "lovelace" not in json.dumps(record)
