"""Claims about keys: shown once and kept as a hash, in SQLite and PostgreSQL alike; every fault is one sentence."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from fulmen_core.cli import main
from fulmen_core.errors import UserError
from fulmen_serving.platform.api_key import secret_hash
from fulmen_serving.platform.database import Database
from fulmen_serving.platform.key_store import KeyLimits, KeyStore
from fulmen_serving.platform.moments import moment
from fulmen_serving.platform.prices import load_prices
from fulmen_serving.platform.schema import schema_versions
from fulmen_serving.platform.token_bucket import TokenBucket
from fulmen_serving.platform.usage_store import Usage, UsageCell, UsageStore, month_of, next_month_of


@pytest.fixture
def database(place):
    opened = Database(place)
    yield opened
    opened.close()


def test_a_key_is_found_by_its_hash_until_the_end_and_keeps_what_it_was_given(database):
    store = KeyStore(database)
    expires = int(time.time()) + 1000
    secret, made = store.create("ci", "acme", expires=expires, limits=KeyLimits(60, 1000, 2))
    store.set_quota("acme", 5000)
    found = store.find(secret_hash(secret))
    assert (found.id, found.name, found.organisation, found.expires) == (made.id, "ci", "acme", expires)
    assert (found.requests_per_minute, found.tokens_per_minute, found.max_concurrent) == (60, 1000, 2)
    assert found.tokens_per_month == 5000
    assert [found.state(expires - 1), found.state(expires)] == ["active", "expired"]
    assert store.find(secret_hash(secret[:-1] + "!")) is None
    assert store.revoke(found.prefix).state(0) == "revoked"
    again = store.revoke(found.id)
    assert again.revoked == store.find(secret_hash(secret)).revoked
    store.create("other")
    assert sorted(key.organisation for key in store.list()) == ["acme", "default"]
    assert [key.name for key in store.list("default")] == ["other"]


def test_secrets_are_256_random_bits_and_differ(database):
    secrets = {KeyStore(database).create(f"k{number}")[0] for number in range(20)}
    assert len(secrets) == 20
    assert all(re.fullmatch(r"fm-[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_the_database_holds_no_secret(tmp_path):
    database = Database(str(tmp_path / "p.db"))
    secret, key = KeyStore(database).create("ci")
    database.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in written
    assert secret[len(key.prefix) :].encode() not in written
    assert secret_hash(secret).encode() in written
    assert (tmp_path / "p.db").stat().st_mode & 0o077 == 0


def test_usage_adds_up_from_many_threads_and_is_summed_as_asked(database):
    keys, usage = KeyStore(database), UsageStore(database)
    one, two = keys.create("one", "acme")[1], keys.create("two", "other")[1]
    hours = [1_800_000_000 // 3600 * 3600 + 3600 * number for number in range(3)]

    def add():
        for _ in range(10):
            usage.add({UsageCell(key.id, "m", hour): Usage(1, 2, 3, 5) for key in (one, two) for hour in hours}, {})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.used for row in usage.report()] == [Usage(120, 240, 360, 600)] * 2
    assert [(row.hour, row.used.requests) for row in usage.report(key=one.prefix, hourly=True)] == [
        (hour, 40) for hour in hours
    ]
    [row] = usage.report(organisation="other", since=hours[1] + 1800)
    assert (row.key_id, row.used) == (two.id, Usage(80, 160, 240, 400))
    assert usage.tokens_since(one.organisation_id, hours[2]) == 40 * 5
    with pytest.raises(UserError, match="did you mean 'acme'"):
        usage.report(organisation="acne")


def test_two_servers_make_the_tables_at_once(place):
    opened, faults = [], []

    def start():
        try:
            opened.append(Database(place))
        except UserError as error:
            faults.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len({KeyStore(database).create("k")[1].id for database in opened}) == 4
    for database in opened:
        database.close()


def test_another_version_is_refused_in_a_sentence(place):
    database = Database(place)
    with database.write() as connection:
        connection.execute(schema_versions.update().values(version=7))
    database.close()
    with pytest.raises(UserError, match=r"has schema version 7, and this Fulmen knows 1: use the Fulmen that made it"):
        Database(place)


def test_a_transaction_that_raises_leaves_nothing(database):
    def half_done():
        with database.write() as connection:
            connection.execute(schema_versions.insert().values(version=99))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_done()
    with database.read() as connection:
        assert connection.execute(schema_versions.select()).scalars().all() == [1]


def run(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_verbs_make_list_revoke_and_report(place, capsys):
    where = ["--platform", place]
    code, out, err = run(capsys, "keys", "create", "ci", "--organisation", "acme", "--expires", "90d", *where)
    assert (code, out.count("\n")) == (0, 1)
    assert "cannot be shown again" in err
    secret = out.strip()
    made = json.loads(run(capsys, "keys", "create", "web", "--requests-per-minute", "5", "--json", *where)[1])
    assert made["key"].startswith(made["prefix"])
    code, out, _ = run(capsys, "keys", "list", "--json", *where)
    assert sorted((key["name"], key["state"]) for key in json.loads(out)) == [("ci", "active"), ("web", "active")]
    assert secret not in out
    assert made["key"] not in out
    assert run(capsys, "keys", "revoke", made["id"], *where)[0] == 0
    assert "revoked" in run(capsys, "keys", "list", *where)[1]
    assert json.loads(run(capsys, "keys", "quota", "acme", "--tokens-per-month", "10", "--json", *where)[1]) == {
        "organisation": "acme",
        "tokens_per_month": 10,
    }
    database = Database(place)
    hour = int(time.time()) // 3600 * 3600
    UsageStore(database).add({UsageCell(made["id"], "m", hour): Usage(2, 10, 20, 1_500_000_000_000)}, {})
    database.close()
    report = json.loads(run(capsys, "usage", "--key", made["prefix"], "--since", "7d", "--json", *where)[1])
    assert report["total"] == {
        "requests": 2,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
        "cost": "1.50",
    }
    assert "web" in run(capsys, "usage", "--hourly", *where)[1]
    assert "Nothing was used." in run(capsys, "usage", "--organisation", "acme", *where)[1]


def test_the_database_can_be_named_by_the_environment(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FULMEN_PLATFORM", str(tmp_path / "p.db"))
    assert run(capsys, "keys", "list") == (0, "There is no key.\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["keys", "list"], "there is no --platform"),
        (["keys", "list", "--platform", "{dir}/no/such/p.db"], "No such file or directory"),
        (["keys", "list", "--platform", "{dir}"], "Is a directory"),
        (["keys", "list", "--platform", "{dir}/text"], "file is not a database"),
        (["keys", "list", "--platform", "mysql://u:hunter2@h/d"], "cannot be 'mysql'"),
        (["keys", "list", "--platform", "postgresql://u:hunter2@127.0.0.1:1/d"], "u:***@127.0.0.1:1/d cannot be used"),
        (["keys", "list", "--platform", "postgresql://u:hunter2@h:port/d"], "is malformed"),
        (["keys", "list", "--platform", "sqlite://"], "needs a file"),
        (["keys", "create", "--platform", "{dir}/p.db"], "name"),
        (["keys", "create", "", "--platform", "{dir}/p.db"], "1 to 200 printable"),
        (["keys", "create", "a\nb", "--platform", "{dir}/p.db"], "1 to 200 printable"),
        (["keys", "create", "a", "--expires", "2020-01-01", "--platform", "{dir}/p.db"], "in the past"),
        (["keys", "create", "a", "--expires", "soon", "--platform", "{dir}/p.db"], "neither a time nor a span"),
        (["keys", "create", "a", "--max-concurrent", "0", "--platform", "{dir}/p.db"], "0 concurrent requests"),
        (["keys", "revoke", "key_0", "--platform", "{dir}/p.db"], "there is no key key_0"),
        (["keys", "revoke", "fm-hunter2" + "x" * 40, "--platform", "{dir}/p.db"], "there is no key that id or prefix"),
        (["keys", "list", "--organisation", "x", "--platform", "{dir}/p.db"], "there is no organisation 'x'"),
        (["keys", "quota", "a", "--tokens-per-month", "-1", "--platform", "{dir}/p.db"], "--tokens-per-month"),
        (["keys", "quota", "a", "--tokens-per-month", "1k", "--platform", "{dir}/p.db"], "no number of tokens"),
        (["usage", "--since", "yesterday", "--platform", "{dir}/p.db"], "neither a time nor a span"),
        (["keys", "lst", "--platform", "{dir}/p.db"], "invalid choice"),
    ],
)
def test_a_fault_is_one_sentence_without_a_secret(arguments, words, tmp_path, capsys):
    (tmp_path / "text").write_text("no database " * 100)
    code, out, err = run(capsys, *(argument.format(dir=tmp_path) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("fulmen: error: ")
    assert len(err.splitlines()) == 1
    assert words in err
    assert "hunter2" not in err


def test_sqlite_writes_ahead(tmp_path):
    Database(str(tmp_path / "p.db")).close()
    connection = sqlite3.connect(tmp_path / "p.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_months_are_calendar_months_in_utc():
    december = moment("2026-12-31T23:59:59Z")
    assert month_of(december) == moment("2026-12-01")
    assert next_month_of(december) == moment("2027-01-01")
    assert month_of(moment("2027-01-01T00:30+01:00")) == moment("2026-12-01")


def test_a_bucket_admits_what_flows_in_and_waits_out_a_debt():
    now = [0.0]
    bucket = TokenBucket(60, lambda: now[0])
    for _ in range(60):
        assert bucket.wait_for(1) == 0
        bucket.take(1)
    assert bucket.wait_for(1) == pytest.approx(1)
    now[0] += 1
    assert bucket.wait_for(1) == 0
    bucket.take(31)  # an answer longer than what was left
    assert (bucket.remaining, bucket.wait_for(1)) == (0, pytest.approx(31))
    now[0] += 31
    assert bucket.wait_for(1) == 0
    now[0] += 1000
    assert (bucket.remaining, bucket.full_in) == (60, 0)
    assert bucket.wait_for(1000) == 0  # more than a minute's worth: from a full bucket, or never


def test_prices_are_exact(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text("[chat]\ninput_per_million = 0.0375\noutput_per_million = 0.15\n")
    table = load_prices(path)
    assert table.cost("chat", 1, 3) == 37_500 + 3 * 150_000
    assert table.cost("other", 1, 1) == 0
    assert load_prices(path, base="chat").cost("an adapter of it", 1, 3) == table.cost("chat", 1, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[chat]\ninputs_per_million = 1", "did you mean input_per_million"),
        ("[chat]\ninput_per_million = -1", "a price from 0"),
        ("[chat]\ninput_per_million = nan", "no number"),
        ("[chat]\ninput_per_million = '1'", "no number"),
        ("[chat]\ninput_per_million = 0.0000001", "at most six decimals"),
        ("chat = 1", "'chat' is no table"),
        ("[chat", "is no TOML"),
    ],
)
def test_a_fault_of_the_price_table_is_one_sentence(text, words, tmp_path):
    path: Path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(words)):
        load_prices(path)
