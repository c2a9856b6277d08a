from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulmen_core.registry import Registry
from fulmen_safety import UserError
from fulmen_safety.audit.store import open_store
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.policy import make_policy


@pytest.fixture
def audited(policy_table: dict[str, Any], tmp_path: Path) -> Callable[..., RaiseGuard]:
    def make(**audit: Any) -> RaiseGuard:
        table = {**policy_table, "audit": {"path": "logs/audit.jsonl", **audit}}
        return RaiseGuard(make_policy(table, where="p", folder=tmp_path), Registry.of("fulmen_safety.plugin"))

    return make


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs/audit.jsonl").read_text("ascii").splitlines()]


def test_every_verdict_at_input_and_output_is_recorded_without_text(
    audited: Callable[..., RaiseGuard], tmp_path: Path
) -> None:
    guard = audited()
    guard.judge_input([{"role": "user", "content": "I am Ada"}])
    stream = guard.open_output([])
    stream.feed("Hello Ada, ")
    stream.finish()
    guard.judge_document("nothing to see")
    guard.judge_document("red mercury")
    entered, answered, document = records(tmp_path)
    assert (entered["phase"], entered["action"], entered["policy"]) == ("input", "rewrite", guard.policy_version)
    assert (answered["phase"], answered["action"], answered["characters"]) == ("output", "redact", 11)
    assert answered["delivered_sha256"] == hashlib.sha256(b"Hello [NAME], ").hexdigest()
    assert [answered["findings"][0][key] for key in ("label", "start", "end")] == ["name", 6, 9]
    assert (document["phase"], document["action"]) == ("corpus", "drop")
    assert "Ada" not in (tmp_path / "logs/audit.jsonl").read_text()


def test_text_is_recorded_where_the_policy_asks_for_it(audited: Callable[..., RaiseGuard], tmp_path: Path) -> None:
    audited(text=True).judge_input([{"role": "user", "content": "I am Ada"}])
    assert records(tmp_path)[0]["given"] == "user: I am Ada"


def test_the_log_is_only_ever_appended_to(audited: Callable[..., RaiseGuard], tmp_path: Path) -> None:
    for _ in range(2):
        audited().judge_input([{"role": "user", "content": "hello \ud800"}])
    assert [record["action"] for record in records(tmp_path)] == ["allow", "allow"]


def test_a_log_that_cannot_be_opened_is_named(audited: Callable[..., RaiseGuard], tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(UserError, match=r"audit\.jsonl cannot be written"):
        audited()


def test_a_verdict_that_cannot_be_recorded_is_not_given(audited: Callable[..., RaiseGuard]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(UserError, match="cannot be written"):
        audited(path=str(full)).judge_input([{"role": "user", "content": "hello"}])


def test_an_answer_that_nobody_read_to_its_end_is_recorded_as_far_as_it_was_delivered(
    audited: Callable[..., RaiseGuard], tmp_path: Path
) -> None:
    stream = audited().open_output([])
    delivered = stream.feed("Hello Ada, and now red mer").text
    del stream
    (record,) = records(tmp_path)
    assert (record["action"], record["complete"], record["characters"]) == ("redact", False, 26)
    assert record["delivered_sha256"] == hashlib.sha256(delivered.encode()).hexdigest()


def test_an_answer_of_which_nothing_came_is_not_recorded(audited: Callable[..., RaiseGuard], tmp_path: Path) -> None:
    audited().open_output([])
    assert records(tmp_path) == []


def test_a_policy_names_a_database_too(audited: Callable[..., RaiseGuard], tmp_path: Path) -> None:
    audited(path="logs/audit.db").judge_input([{"role": "user", "content": "I am Ada"}])
    (record,) = open_store("logs/audit.db", tmp_path).records()
    assert isinstance(record, dict)
    assert (record["phase"], record["action"]) == ("input", "rewrite")


def test_a_process_that_died_is_recorded(audited: Callable[..., RaiseGuard], tmp_path: Path) -> None:
    audited().record_loss("the guard's process died: it was killed by SIGKILL")
    (record,) = records(tmp_path)
    assert (record["phase"], record["failed_closed"]) == ("loss", True)
    assert "SIGKILL" in record["failures"][0]
