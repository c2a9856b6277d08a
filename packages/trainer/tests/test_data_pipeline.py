"""The data run: what RAISE-1 does to a corpus, what deduplication leaves, and that a step is made once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.descriptors import GuardInfo, SourceInfo
from fulmen_core.errors import UserError
from fulmen_core.files import hash_tree
from fulmen_core.guard import DocumentVerdict, Finding, InputVerdict, OutputChunk, OutputStream
from fulmen_core.hooks import hookimpl
from fulmen_core.registry import Registry
from fulmen_core.runs import RunDirectory
from fulmen_core.tokenizer import ByteLevelTokenizer, load_tokenizer
from fulmen_trainer.data.baseline import gzip_bits_per_byte
from fulmen_trainer.data.dedup import content_hash, deduplicate
from fulmen_trainer.data.documents import read_documents, write_documents
from fulmen_trainer.data.filtering import filter_documents
from fulmen_trainer.data.pipeline import DataResult, build_data
from fulmen_trainer.data.recipe import DataRecipe
from fulmen_trainer.data.shards import open_shards
from fulmen_trainer.data.tokenising import tokenise, training_texts

MAIL = re.compile(r"[a-z]+@[a-z]+\.org")


class MailGuard:
    """A small guard: rewrites mail addresses, drops "poison", cannot read "crash", is unsure of "odd"."""

    name = "mail"
    policy_version = "1"

    def __init__(self) -> None:
        self.judged = 0

    def judge_document(self, text: str) -> DocumentVerdict:
        self.judged += 1
        if "crash" in text:
            raise RecursionError("too deep")
        if "poison" in text:
            start = text.index("poison")
            return DocumentVerdict("drop", text, (Finding("words", "harm", 1.0, start, start + 6),))
        if "odd" in text:
            return DocumentVerdict("quarantine", text, reason="a detector was late")
        found = tuple(Finding("mail", "privacy", 1.0, *match.span()) for match in MAIL.finditer(text))
        return DocumentVerdict("redact", MAIL.sub("[mail]", text), found) if found else DocumentVerdict("keep", text)

    def reward_penalty(self, prompt: str, answer: str) -> float:
        return float("poison" in answer)

    def judge_input(self, messages: Sequence[Mapping[str, str]]) -> InputVerdict:
        return InputVerdict("allow", tuple(messages))

    def open_output(self, messages: Sequence[Mapping[str, str]]) -> OutputStream:
        return Through()


class Through:
    def feed(self, text: str) -> OutputChunk:
        return OutputChunk(text)

    def finish(self) -> OutputChunk:
        return OutputChunk("")


def document(text: str) -> dict[str, Any]:
    return {"text": text, "source": "test"}


def item(question: str, answer: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "source": "test", "verifier": "exact", "answer": answer}


def filtered(
    tmp_path: Path, records: list[dict[str, Any]], rate: float = 1.0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    write_documents(tmp_path / "in.jsonl", records)
    counts = filter_documents(tmp_path / "in.jsonl", tmp_path, MailGuard(), max_quarantine_rate=rate)
    return counts, list(read_documents(tmp_path / "documents.jsonl"))


def test_raise_1_keeps_rewrites_drops_and_quarantines_and_counts_each_by_category(tmp_path: Path) -> None:
    texts = ["fine", "write to ann@site.org", "poison", "two: a@b.org c@d.org", "crash", "odd", "fine too"]
    counts, kept = filtered(tmp_path, [document(text) for text in texts])
    assert [record["text"] for record in kept] == ["fine", "write to [mail]", "two: [mail] [mail]", "fine too"]
    assert counts == {
        "documents": 4,
        "bytes": sum(len(record["text"]) for record in kept),
        "redacted": 2,
        "dropped": 1,
        "quarantined": 2,
        "categories": {"redact": {"privacy": 2}, "drop": {"harm": 1}},
    }


def test_a_guard_that_raises_puts_the_document_into_quarantine_with_the_reason(tmp_path: Path) -> None:
    filtered(tmp_path, [document("crash"), document("odd"), document("fine")])
    reasons = [record["reason"] for record in read_documents(tmp_path / "quarantine.jsonl")]
    assert reasons == ["mail raised RecursionError: too deep", "a detector was late"]


def test_an_instruction_that_would_have_to_be_rewritten_is_dropped(tmp_path: Path) -> None:
    counts, kept = filtered(tmp_path, [item("Who?", "ann@site.org"), item("What is 1+1?", "2")])
    assert [record["answer"] for record in kept] == ["2"]
    assert (counts["dropped"], counts["categories"]) == (1, {"drop": {"privacy": 1}})


def test_too_many_quarantined_documents_stop_the_run_before_it_reads_everything(tmp_path: Path) -> None:
    write_documents(tmp_path / "in.jsonl", [document(f"crash {i}") for i in range(1000)])
    guard = MailGuard()
    with pytest.raises(UserError, match=r"50 of 50 documents are in quarantine, more than 10.0%.*RecursionError"):
        filter_documents(tmp_path / "in.jsonl", tmp_path, guard, max_quarantine_rate=0.1)
    assert guard.judged == 50


def test_a_few_documents_over_the_rate_stop_the_run_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 of 4 documents"):
        filtered(tmp_path, [document(text) for text in ("crash", "a", "b", "c")], rate=0.2)
    assert filtered(tmp_path, [document(text) for text in ("crash", "a", "b", "c")], rate=0.25)[0]["documents"] == 3


def test_a_guard_that_keeps_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kept none of 1"):
        filtered(tmp_path, [document("poison")])


@given(st.lists(st.text("ab \n\té\u0301", max_size=6), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_deduplication_leaves_the_first_of_every_normalised_text(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    root = tmp_path_factory.mktemp("dedup")
    write_documents(root / "in.jsonl", [document(text) for text in texts])
    counts = deduplicate({"x": root / "in.jsonl"}, root)["x"]
    left = [record["text"] for record in read_documents(root / "x.jsonl")]
    assert len({content_hash(text) for text in left}) == len(left) == counts["documents"]
    assert {content_hash(text) for text in left} == {content_hash(text) for text in texts}
    assert counts["documents"] + counts["duplicates"] == len(texts)
    first = {content_hash(text): text for text in reversed(texts)}
    assert left == [text for text in texts if first.pop(content_hash(text), None) is not None]


def test_white_space_and_composition_do_not_make_a_document_new_but_case_does() -> None:
    assert content_hash("caf\u00e9  x\n") == content_hash("cafe\u0301 x")
    assert content_hash("Cafe") != content_hash("cafe")


def test_a_later_source_loses_what_an_earlier_one_said(tmp_path: Path) -> None:
    write_documents(tmp_path / "one", [document("a"), document("b")])
    write_documents(tmp_path / "two", [document(" b"), document("c")])
    statistics = deduplicate({"one": tmp_path / "one", "two": tmp_path / "two"}, tmp_path)
    assert (statistics["one"]["duplicates"], statistics["two"]["duplicates"]) == (0, 1)
    with pytest.raises(UserError, match="every document of 'two' repeats another"):
        deduplicate({"one": tmp_path / "one", "two": tmp_path / "one"}, tmp_path)


def test_a_document_is_framed_and_a_conversation_ends_with_endoftext() -> None:
    tokenizer = ByteLevelTokenizer.train(["What is 1+1? é"], 512)
    text, chat = tokenise([document("é 1"), item("What is 1+1?", "2")], tokenizer)
    assert text.ids == [tokenizer.eos_id, *tokenizer.encode("é 1"), tokenizer.eos_id]
    assert chat.ids == [*tokenizer.encode_chat(item("What is 1+1?", "2")["messages"]), tokenizer.eos_id]
    assert (text.bytes, chat.bytes) == (4, len("What is 1+1?\n2"))


def test_a_tokenizer_that_saw_conversations_spells_each_role_and_line_break_in_one_token() -> None:
    records = [item(f"What is {i}+1?", str(i + 1)) for i in range(40)]
    tokenizer = ByteLevelTokenizer.train(training_texts(records), 384)
    assert len(tokenizer.encode("assistant")) == len(tokenizer.encode("user")) == 1
    assert len(tokenizer.encode("assistant\n")) == 2


def test_gzip_is_worth_eight_bits_on_noise_and_next_to_none_on_a_repetition() -> None:
    assert gzip_bits_per_byte(["abc" * 100_000]) < 0.1
    assert gzip_bits_per_byte(["".join(chr(33 + i * i * 7919 % 90) for i in range(50))]) > 4


NOTES = [f"note {i}: see ann@site.org for the {i * 7}th part of it\n" for i in range(40)]
TEXTS = [*NOTES, NOTES[3], "poison", "crash"]


def notes(*, first: int = 0) -> Iterator[dict[str, object]]:
    yield from (document(text) for text in TEXTS[first:])


def broken() -> Iterator[dict[str, object]]:
    yield document("fine")
    raise ZeroDivisionError("oh no")


def plugin() -> ModuleType:
    """The guard above and a source of notes, as a plugin module."""
    module = ModuleType("data_test_plugin")

    @hookimpl
    def fulmen_guards() -> list[GuardInfo]:
        return [GuardInfo("mail", "mail addresses", lambda policy, registry: MailGuard())]

    @hookimpl
    def fulmen_data_sources() -> list[SourceInfo]:
        return [SourceInfo("notes", "", "documents", notes), SourceInfo("broken", "", "documents", broken)]

    module.fulmen_guards, module.fulmen_data_sources = fulmen_guards, fulmen_data_sources  # type: ignore[attr-defined]
    return module


@pytest.fixture
def notes_recipe(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "a.txt").write_text(NOTES[5], "utf-8")
    return {
        "run": tmp_path / "run",
        "guard": {"name": "mail", "max_quarantine_rate": 0.05},
        "tokenizer": {"vocab_size": 384},
        "sources": {
            "notes": {"source": "notes"},
            "held": {"source": "folder", "settings": {"path": str(tmp_path / "held")}, "purpose": "heldout"},
            "sums": {"source": "tasks", "settings": {"names": ["addition"], "count": 30}},
        },
    }


def built(recipe: dict[str, Any]) -> tuple[DataResult, list[str]]:
    lines: list[str] = []
    registry = Registry.of(plugin(), "fulmen_trainer.plugin")
    return build_data(DataRecipe(**recipe), registry, report=lines.append), lines


def test_the_whole_road_from_sources_to_shards(notes_recipe: dict[str, Any]) -> None:
    result, _ = built(notes_recipe)
    figures = result.statistics["notes"]
    assert {
        key: figures[key] for key in ("collected", "redacted", "dropped", "quarantined", "duplicates", "documents")
    } == {
        "collected": 43,
        "redacted": 41,
        "dropped": 1,
        "quarantined": 1,
        "duplicates": 2,  # the repeated note, and the one that is held out
        "documents": 39,
    }
    tokenizer = load_tokenizer(result.tokenizer)
    shards = open_shards(result.shards["notes"], tokenizer=tokenizer)
    texts = [tokenizer.decode(shards.document(number).tolist()) for number in range(shards.documents)]
    assert texts == [text.replace("ann@site.org", "[mail]") for text in NOTES if text != NOTES[5]]
    assert figures["tokens"] == shards.tokens
    assert figures["bytes_per_token"] == pytest.approx(sum(map(len, texts)) / shards.tokens)
    assert result.statistics["held"]["gzip_bits_per_byte"] > 1
    sums = open_shards(result.shards["sums"], tokenizer=tokenizer)
    assert tokenizer.decode(sums.document(0).tolist()).startswith("user\nWhat is ")
    assert len(list(read_documents(result.documents["sums"]))) == 30


def test_an_unchanged_run_makes_nothing_again(notes_recipe: dict[str, Any]) -> None:
    built(notes_recipe)
    _, lines = built(notes_recipe)
    assert lines
    assert all("unchanged" in line for line in lines)


def test_a_changed_setting_or_file_makes_again_what_depends_on_it(notes_recipe: dict[str, Any], tmp_path: Path) -> None:
    built(notes_recipe)
    notes_recipe["tokenizer"] = {"vocab_size": 512}
    _, lines = built(notes_recipe)
    remade = {line.partition(":")[0] for line in lines if "unchanged" not in line}
    assert remade == {"tokenizer", "shards-notes", "shards-held", "shards-sums"}
    (tmp_path / "held" / "a.txt").write_text("something new", "utf-8")
    _, lines = built(notes_recipe)
    unchanged = {line.partition(":")[0] for line in lines if "unchanged" in line}
    assert {"documents-notes", "kept-notes", "documents-sums"} <= unchanged
    assert not {"documents-held", "kept-held", "unique", "shards-held"} & unchanged


@pytest.mark.parametrize("judged", [1, 20, 50])
def test_a_run_that_was_interrupted_goes_on_to_the_same_result(
    notes_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judged: int
) -> None:
    whole, _ = built({**notes_recipe, "run": tmp_path / "whole"})
    judge = MailGuard.judge_document

    def interrupted(guard: MailGuard, text: str) -> DocumentVerdict:
        if guard.judged == judged:
            raise KeyboardInterrupt
        return judge(guard, text)

    with monkeypatch.context() as patch:
        patch.setattr(MailGuard, "judge_document", interrupted)
        with pytest.raises(KeyboardInterrupt):
            built(notes_recipe)
    result, _ = built(notes_recipe)
    assert result.statistics == whole.statistics
    for name, shards in result.shards.items():
        assert hash_tree(shards) == hash_tree(whole.shards[name])


def test_a_given_tokenizer_is_used_and_not_trained(notes_recipe: dict[str, Any], tmp_path: Path) -> None:
    ByteLevelTokenizer.train(["abc"], 384).save(tmp_path / "given")
    notes_recipe["tokenizer"] = {"path": tmp_path / "given"}
    result, lines = built(notes_recipe)
    assert result.tokenizer == tmp_path / "given"
    assert not any(line.startswith("tokenizer") for line in lines)
    open_shards(result.shards["notes"], tokenizer=load_tokenizer(tmp_path / "given"))


def test_the_manifest_holds_the_statistics(notes_recipe: dict[str, Any]) -> None:
    result, _ = built(notes_recipe)
    runs = RunDirectory(notes_recipe["run"])
    assert runs.artefact("kept-notes").measurements["categories"] == {"redact": {"privacy": 41}, "drop": {"harm": 1}}
    assert runs.artefact("shards-notes").measurements["tokens"] == result.statistics["notes"]["tokens"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sources": {"x": {"source": "nope"}}}, "unknown data source 'nope'"),
        (
            {"sources": {"x": {"source": "notes", "settings": {"frist": 1}}}},
            "no setting 'frist' .*did you mean 'first'",
        ),
        ({"sources": {"x": {"source": "jsonl"}}}, "needs the setting 'path'"),
        ({"sources": {"x": {"source": "tasks", "settings": {"count": "many"}}}}, "'count' does not fit"),
        ({"sources": {"x": {"source": "notes", "settings": {"first": 99}}}}, "the corpus is empty: 'x'"),
        ({"sources": {"x": {"source": "broken"}}}, "the source 'x' raised ZeroDivisionError: oh no after 1 item"),
        ({"tokenizer": {"vocab_size": 1000}}, "nearest valid size is 1024"),
        ({"tokenizer": {"path": Path("/nowhere")}}, "there is no tokenizer"),
        ({"guard": {"name": "mial"}}, "unknown guard 'mial'"),
        ({"guard": {"name": "mail", "max_quarantine_rate": 0.001}}, "in quarantine"),
    ],
)
def test_a_run_that_cannot_succeed_says_why_in_one_sentence(
    notes_recipe: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        built({**notes_recipe, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sources", [{}, {"Bad Name": {"source": "notes"}}, {"x": {"source": "notes", "purpose": "heldout"}}]
)
def test_a_recipe_without_sensible_sources_is_refused(sources: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"sources|source name|held out"):
        DataRecipe(sources=sources)


def run_verb(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    from fulmen_core.cli import main

    code = main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_verbs_build_data_and_train_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts").mkdir()
    for number, note in enumerate(NOTES):
        (tmp_path / "texts" / f"{number}.txt").write_text(note, "utf-8")
    source = ["sources.notes.source=folder", f"sources.notes.settings.path={tmp_path / 'texts'}"]
    code, out, err = run_verb(
        ["tokenizer", "train", "--json", f"out={tmp_path / 'tk'}", "vocab_size=384", *source], capsys
    )
    assert code == 0, err
    assert json.loads(out)["vocab_size"] == 384
    code, out, err = run_verb(
        [
            "data",
            "build",
            "--json",
            f"run={tmp_path / 'run'}",
            "guard.name=none",
            f"tokenizer.path={tmp_path / 'tk'}",
            *source,
        ],
        capsys,
    )
    assert code == 0, err
    result = json.loads(out)
    assert result["statistics"]["notes"]["documents"] == len(NOTES)
    open_shards(Path(result["shards"]["notes"]), tokenizer=load_tokenizer(tmp_path / "tk"))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["data", "biuld"], "unknown command 'biuld'"),
        (["data", "build", "guard.nmae=x"], "did you mean 'name'"),
        (["data", "build", "--recipe", "nowhere.toml"], "nowhere.toml"),
        (["tokenizer", "train", "vocab_size=many"], "'vocab_size'"),
        (["tokenizer", "train", "sources.x.source=folder", "sources.x.settings.path=/nowhere"], "no folder /nowhere"),
    ],
)
def test_a_verb_that_is_used_wrongly_ends_with_one_sentence_and_exit_code_2(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_verb(argv, capsys)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_folder_that_holds_something_else_is_not_replaced_by_a_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", "utf-8")
    source = ["sources.x.source=folder", f"sources.x.settings.path={tmp_path}"]
    code, _, err = run_verb(["tokenizer", "train", f"out={tmp_path}", "vocab_size=384", *source], capsys)
    assert code == 2
    assert "something else than a tokenizer" in err
    assert (tmp_path / "thesis.txt").read_text("utf-8") == "years of work"
