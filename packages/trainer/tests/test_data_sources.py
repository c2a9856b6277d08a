"""Sources yield the same documents each time, keep held-out ones apart, and name what they cannot read."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_trainer.data.documents import collect
from fulmen_trainer.data.sources import folder, jsonl, python_stdlib
from fulmen_trainer.data.splits import in_split


@pytest.fixture(scope="module")
def library() -> dict[str, dict[str, str]]:
    """Name -> text, of each split."""
    return {
        split: {str(item["name"]): str(item["text"]) for item in python_stdlib(split=split)}
        for split in ("all", "train", "heldout")
    }


def test_the_standard_library_is_megabytes_of_python_without_its_tests(library: dict[str, dict[str, str]]) -> None:
    texts = library["all"]
    assert sum(len(text.encode()) for text in texts.values()) > 5_000_000
    assert {"argparse.py", "json/decoder.py"} <= texts.keys()
    assert not any({"test", "tests", "site-packages", "encodings"} & set(Path(name).parts) for name in texts)
    assert not any(name.startswith("_sysconfigdata") for name in texts)  # it names this machine's folders
    ast.parse(texts["argparse.py"])


def test_the_standard_library_is_split_in_two_without_overlap_or_loss(library: dict[str, dict[str, str]]) -> None:
    train, heldout = library["train"], library["heldout"]
    assert set(train.values()).isdisjoint(heldout.values())
    assert train | heldout == library["all"]
    assert 0.02 < len(heldout) / len(library["all"]) < 0.10


def test_files_come_in_the_same_order_each_time(library: dict[str, dict[str, str]]) -> None:
    assert [item["name"] for item in python_stdlib(split="heldout")] == list(library["heldout"])
    assert list(library["all"]) == sorted(library["all"])


def test_docstrings_of_held_out_files_are_held_out_too(library: dict[str, dict[str, str]]) -> None:
    documents = {str(item["name"]): str(item["text"]) for item in python_stdlib(split="heldout", content="docstrings")}
    assert documents.keys() == library["heldout"].keys()
    with_one = [name for name, text in library["heldout"].items() if ast.get_docstring(ast.parse(text))]
    assert with_one
    for name in with_one:
        assert str(ast.get_docstring(ast.parse(library["heldout"][name]))) in documents[name]


@given(st.text(), st.floats(0, 100))
@settings(max_examples=50, deadline=None)
def test_a_text_is_either_for_training_or_held_out(text: str, percent: float) -> None:
    assert in_split(text, "train", percent) != in_split(text, "heldout", percent)
    assert in_split(text, "all", percent)


@given(st.text(), st.floats(0, 100), st.floats(0, 100))
@settings(max_examples=50, deadline=None)
def test_a_larger_share_keeps_what_was_held_out(text: str, first: float, second: float) -> None:
    if in_split(text, "heldout", min(first, second)):
        assert in_split(text, "heldout", max(first, second))


def test_a_folder_gives_its_matching_files_by_sorted_path(tmp_path: Path) -> None:
    for name, text in {"b.txt": "b\r\n", "a/z.md": "\ufeffz", "a/y.rst": "y", "c.bin": "no", "a.txt": "é"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    found = [(item["name"], item["text"]) for item in folder(path=str(tmp_path))]
    assert found == [("a.txt", "é"), ("a/y.rst", "y"), ("a/z.md", "z"), ("b.txt", "b\r\n")]


@given(good=st.text(max_size=20), after=st.text(max_size=5))
@settings(max_examples=20, deadline=None)
def test_invalid_utf8_is_named_with_file_and_byte_offset(
    tmp_path_factory: pytest.TempPathFactory, good: str, after: str
) -> None:
    root = tmp_path_factory.mktemp("files")
    (root / "bad.txt").write_bytes(good.encode() + b"\xff" + after.encode())
    (root / "fine.txt").write_text("fine", "utf-8")
    place = f"at byte {len(good.encode())} in {root / 'bad.txt'}"
    with pytest.raises(UserError) as caught:
        list(folder(path=str(root)))
    assert place in str(caught.value)
    skipped, kept = folder(path=str(root), invalid="skip")
    assert place in str(skipped["fault"])
    assert kept["text"] == "fine"


def test_json_lines_keep_their_other_keys_and_rename_the_text(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"body": "one", "lang": "en"}\n\n{"messages": [{"role": "user", "content": "hi"}]}\n', "utf-8")
    first, second = jsonl(path=str(path), field="body")
    assert (first["text"], first["lang"], first["name"]) == ("one", "en", "data.jsonl:1")
    assert second["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{broken", "not JSON .* line 2"),
        (b"[1]", "not a JSON object in .* line 2"),
        (b'{"txt": "x"}', "no text under 'text' and no messages in .* line 2"),
        (b'{"text": 7}', "no text under 'text'"),
        (b'{"text": "a\xe9"}', "invalid UTF-8 at byte 28"),
        (b'{"text": "\\ud800"}', "lone surrogate"),
    ],
)
def test_a_bad_line_is_named_and_skipped_only_on_request(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n" + b'{"text": "\\ud83d\\ude00"}\n')
    with pytest.raises(UserError, match=said):
        list(jsonl(path=str(path)))
    items = list(jsonl(path=str(path), invalid="skip"))
    assert [item.get("text") for item in items] == ["fine", None, "😀"]
    assert "fault" in items[1]


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        list(folder(path=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"there is no file .*nowhere\.jsonl"):
        list(jsonl(path=str(tmp_path / "nowhere.jsonl")))


def test_a_source_that_gives_nothing_is_an_empty_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the corpus is empty: 'notes' gave no document"):
        collect("notes", folder(path=str(tmp_path)), tmp_path / "out.jsonl")


def test_collecting_counts_what_is_empty_or_unreadable(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [
        {"text": "é"},
        {"text": " \n"},
        {"fault": "x.txt: bad"},
        {"messages": [{"role": "user", "content": "ab"}]},
    ]
    counts = collect("mixed", items, tmp_path / "out.jsonl")
    assert counts == {"documents": 2, "bytes": 4, "empty": 1, "unreadable": 1, "faults": ["x.txt: bad"]}
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()] == [
        items[0],
        items[3],
    ]


@pytest.mark.parametrize("item", [{"txt": "x"}, {"text": None}, {"messages": [{"role": "root", "content": "x"}]}])
def test_a_source_that_yields_something_else_is_at_fault(tmp_path: Path, item: dict[str, object]) -> None:
    with pytest.raises(UserError, match="item 0 of odd"):
        collect("odd", [item], tmp_path / "out.jsonl")
