from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.cli import main
from fulmen_safety import UserError
from fulmen_safety.audit import jsonl_store
from fulmen_safety.audit.chain import verify
from fulmen_safety.audit.pruning import duration, prune
from fulmen_safety.audit.record import canonical, chained, hash_of, head_of
from fulmen_safety.audit.store import AuditStore, open_store


def body(text: str, days_ago: float = 0.0) -> dict[str, Any]:
    moment = datetime.now(UTC) - timedelta(days=days_ago)
    return {"time": moment.isoformat(timespec="milliseconds"), "phase": "input", "action": text}


@pytest.fixture(params=["audit.jsonl", "audit.db"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path: Path = tmp_path / request.param
    return path


@pytest.fixture
def store(place: Path) -> Iterator[AuditStore]:
    opened = open_store(str(place), Path())
    yield opened
    opened.close()


def tamper(place: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Rewrite the records behind the store's back, with the head beside them as it was."""
    if place.suffix == ".db":
        with sqlite3.connect(place) as connection:
            rows = [json.loads(text) for (text,) in connection.execute("SELECT record FROM fulmen_audit ORDER BY n")]
            change(rows)
            connection.execute("DROP TRIGGER fulmen_audit_no_delete")
            connection.execute("DELETE FROM fulmen_audit")
            # a row's key says its place: whoever reorders records has to choose keys too
            pairs = [(at + 1, canonical(row).decode()) for at, row in enumerate(rows)]
            connection.executemany("INSERT INTO fulmen_audit VALUES (?, ?)", pairs)
        return
    rows = [json.loads(line) for line in place.read_bytes().splitlines()]
    change(rows)
    place.write_bytes(b"".join(canonical(row) + b"\n" for row in rows))


def test_a_log_that_was_only_appended_to_is_whole(store: AuditStore) -> None:
    for number in range(5):
        store.append(body(str(number)))
    report = verify(store)
    assert (report.records, report.pruned, report.faults) == (5, 0, ())
    assert report.head == store.noted_head()


def test_an_empty_log_is_whole(store: AuditStore) -> None:
    assert verify(store).faults == ()


def _rechain(rows: list[dict[str, Any]]) -> None:
    rows[2]["action"] = "forged"
    for place in range(2, len(rows)):
        kept = {key: value for key, value in rows[place].items() if key not in ("n", "previous", "hash")}
        rows[place] = chained(kept, head_of(rows[place - 1]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[2].update(action="forged"), "record 3 was altered"),
        (lambda rows: rows[2].update(hash=hash_of(rows[2] | {"action": "x"}), action="x"), "record 4 does not follow"),
        (lambda rows: rows.pop(2), "record 3 is missing"),
        (lambda rows: rows.pop(0), "record 1 is missing"),
        (lambda rows: rows.__delitem__(slice(1, 3)), "record 2 to 3 are missing"),
        (lambda rows: rows.insert(1, rows.pop(3)), "record 2 stands after record 4"),
        (lambda rows: rows.insert(2, dict(rows[1])), "record 2 stands after record 2"),
        (lambda rows: rows.pop(), "its end was cut off"),
        (lambda rows: rows.clear(), "its end was cut off"),
        (_rechain, "the chain was made anew"),
    ],
)
def test_what_was_done_to_a_log_behind_its_back_is_found(
    store: AuditStore, place: Path, change: Any, told: str
) -> None:
    for number in range(5):
        store.append(body(str(number)))
    tamper(place, change)
    faults = verify(store).faults
    assert any(told in fault for fault in faults), faults


def test_a_head_that_was_noted_elsewhere_finds_what_the_one_beside_the_log_cannot(store: AuditStore) -> None:
    for number in range(3):
        store.append(body(str(number)))
    known = verify(store).head
    store.append(body("later"))
    assert verify(store, known).faults == ()
    forged = known._replace(hash="f" * 64)
    assert any("noted elsewhere" in fault for fault in verify(store, forged).faults)


def test_the_log_and_its_head_cut_off_together_are_found_by_a_head_noted_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    store = open_store("audit.jsonl", tmp_path)
    store.append(body("first"))
    log, head = path.read_bytes(), Path(f"{path}.head").read_bytes()
    store.append(body("second"))
    known = verify(store).head
    path.write_bytes(log)
    Path(f"{path}.head").write_bytes(head)
    assert verify(store).faults == ()
    assert any("noted elsewhere" in fault for fault in verify(store, known).faults)


def test_a_log_that_outlives_the_modules_is_closed_without_a_complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At exit the interpreter empties modules before it lets go of what a thread still holds."""
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    store = jsonl_store.JsonlStore(tmp_path / "audit.jsonl")
    descriptor = store._descriptor
    monkeypatch.setattr(jsonl_store, "os", None)
    del store
    assert complaints == []
    assert descriptor is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_several_writers_share_a_log(place: Path) -> None:
    stores = [open_store(str(place), Path()) for _ in range(3)]
    for number in range(30):
        stores[number % 3].append(body(str(number)))
    assert verify(stores[0]).faults == ()
    assert [one["action"] for one in stores[1].records()] == [str(number) for number in range(30)]


WRITER = """
import sys
from pathlib import Path
from fulmen_safety.audit.store import open_store
store = open_store(sys.argv[1], Path())
number = 0
while number < int(sys.argv[2]):
    store.append({"time": "2026-01-01T00:00:00+00:00", "phase": "input", "action": sys.argv[3], "text": "x" * 3000})
    number += 1
"""


def writer(place: Path, count: int, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(place), str(count), name])


def test_processes_that_write_at_once_keep_one_chain(place: Path) -> None:
    running = [writer(place, 60, name) for name in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    report = verify(open_store(str(place), Path()))
    assert (report.records, report.faults) == (180, ())


def test_a_process_killed_while_it_writes_leaves_a_log_that_goes_on(place: Path) -> None:
    for _ in range(3):
        process = writer(place, 10**9, "doomed")
        deadline = time.monotonic() + 20
        while (not place.exists() or place.stat().st_size < 4096) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        store = open_store(str(place), Path())
        store.append(body("survivor"))
        assert verify(store).faults == ()
        store.close()


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_torn_record_is_cut_off_and_that_is_written_down(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "audit.jsonl"
    store = open_store("audit.jsonl", tmp_path)
    store.append(body("whole"))
    before = path.stat().st_size
    store.append(body("torn"))
    torn = path.read_bytes()[:-cut]
    path.write_bytes(torn)
    head = Path(f"{path}.head")
    head.write_text(f"{head_of(json.loads(torn.splitlines()[0]))}\n")  # noted after the write, which did not end
    assert any("torn" in fault for fault in verify(store).faults)
    open_store("audit.jsonl", tmp_path).append(body("next"))
    assert verify(store).faults == ()
    _, repair, after = store.records()
    assert isinstance(repair, dict)
    assert isinstance(after, dict)
    assert (repair["phase"], repair["cut"]["bytes"], after["action"]) == ("repair", len(torn) - before, "next")


def test_a_log_whose_last_line_is_no_record_takes_no_more(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"n": 1}\n')
    with pytest.raises(UserError, match="its last line is no record"):
        open_store("audit.jsonl", tmp_path).append(body("next"))


def test_what_is_a_long_record_is_found_again(tmp_path: Path) -> None:
    for text in ("x" * 200_000, "short", "y" * 70_000):
        open_store("audit.jsonl", tmp_path).append(body(text))
    assert verify(open_store("audit.jsonl", tmp_path)).faults == ()


def test_a_fork_does_not_share_its_parents_lock(tmp_path: Path) -> None:
    store = open_store("audit.jsonl", tmp_path)
    store.append(body("parent"))
    child = os.fork()
    if not child:
        try:
            for number in range(50):
                store.append(body(f"child {number}"))
        finally:
            os._exit(0)
    for number in range(50):
        store.append(body(f"parent {number}"))
    assert os.waitpid(child, 0)[1] == 0
    assert (verify(store).records, verify(store).faults) == (101, ())


def test_sqlite_refuses_to_change_or_remove_a_record(tmp_path: Path) -> None:
    open_store("audit.db", tmp_path).append(body("kept"))
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        for statement in ("UPDATE fulmen_audit SET record = ''", "DELETE FROM fulmen_audit"):
            with pytest.raises(sqlite3.IntegrityError, match="only ever appended to"):
                connection.execute(statement)


def test_a_log_is_its_owners_alone(store: AuditStore, place: Path) -> None:
    store.append(body("private", 2))
    store.append(body("private"))
    prune(store, timedelta(days=1))
    assert place.stat().st_mode & 0o077 == 0


# -- retention ---------------------------------------------------------------------------------------------------------


def test_what_is_old_goes_and_the_chain_stays_verifiable(store: AuditStore) -> None:
    for number, age in enumerate((100, 95, 91, 10, 0)):
        store.append(body(str(number), age))
    known = verify(store).head
    assert prune(store, duration("90d")) == 3
    report = verify(store, known)
    assert (report.faults, report.pruned) == ((), 3)
    kept = [one.get("action", one["phase"]) for one in store.records() if isinstance(one, dict)]
    assert kept == ["checkpoint", "3", "4", "prune"]
    store.append(body("5"))
    assert verify(store, known).faults == ()


def test_pruning_again_goes_on_from_the_checkpoint(store: AuditStore) -> None:
    for number, age in enumerate((100, 50, 0)):
        store.append(body(str(number), age))
    assert [prune(store, duration(age)) for age in ("90d", "90d", "30d")] == [1, 0, 1]
    report = verify(store)
    assert (report.faults, report.pruned) == ((), 2)


def test_a_log_may_be_pruned_to_nothing(store: AuditStore) -> None:
    store.append(body("old", 5))
    assert prune(store, duration("1d")) == 1
    assert verify(store).faults == ()


def test_records_removed_by_somebody_else_under_a_made_up_checkpoint_are_found(store: AuditStore, place: Path) -> None:
    for number in range(4):
        store.append(body(str(number)))

    def forge(rows: list[dict[str, Any]]) -> None:
        gone, chain = rows[1]["n"], rows[1]["hash"]
        fake = {"time": body("")["time"], "phase": "checkpoint", "n": gone, "chain": chain, "pruned": 2, "until": ""}
        rows[:2] = [fake | {"hash": hash_of(fake)}]

    tamper(place, forge)
    assert verify(store).faults == ("no record says that the log was pruned to its checkpoint",)


def test_a_writer_goes_on_after_another_has_pruned(place: Path) -> None:
    writing, pruning = open_store(str(place), Path()), open_store(str(place), Path())
    writing.append(body("old", 5))
    writing.append(body("new"))
    prune(pruning, duration("1d"))
    writing.append(body("newer"))
    assert verify(pruning).faults == ()
    assert [one for one in pruning.records() if isinstance(one, dict)][-1]["action"] == "newer"


@pytest.mark.parametrize("text", ["", "90", "d", "90 d", "-1d", "90m"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(UserError, match="is no duration"):
        duration(text)


# -- the verb ----------------------------------------------------------------------------------------------------------


def test_the_verb_verifies_prunes_and_shows(
    store: AuditStore, place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store.append(body("old", 100))
    store.append(body("block"))
    assert main(["raise", "audit", "verify", str(place), "--json"]) == 0
    head = json.loads(capsys.readouterr().out)["head"]
    assert main(["raise", "audit", "prune", str(place), "--older-than", "90d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 1
    assert main(["raise", "audit", "verify", str(place), "--head", head]) == 0
    assert "whole, 3 records, 1 pruned" in capsys.readouterr().out
    assert main(["raise", "audit", "show", str(place)]) == 0
    assert "block" in capsys.readouterr().out
    tamper(place, lambda rows: rows[1].update(action="allow"))
    assert main(["raise", "audit", "verify", str(place), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["faults"] == ["record 2 was altered"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["verify", "nowhere.jsonl"], "there is no audit log"),
        (["verify", "mysql://h/d"], "cannot be kept at mysql://"),
        (["verify"], "keeps no audit log"),
        (["prune", "a.jsonl"], "how old"),
        (["verify", "a.jsonl", "--head", "7"], "is no head"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").touch()
    assert main(["raise", "audit", *arguments]) == 2
    assert told in capsys.readouterr().err
