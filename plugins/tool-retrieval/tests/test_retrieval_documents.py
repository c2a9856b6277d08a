"""Documents are read in every form, named without the machine's folders, and faults are told by place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulmen_core.errors import UserError
from fulmen_tool_retrieval.documents import Document, Reading
from fulmen_tool_retrieval.html_text import html_text


def read(*paths: Path, field: str = "text") -> list[Document]:
    return list(Reading(paths, field).documents())


def test_a_folder_gives_every_form_and_says_what_it_passes_over(tmp_path: Path) -> None:
    root = tmp_path / "handbook"
    (root / "deep").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git/config.txt").write_text("hidden")
    (root / "a.txt").write_bytes("\ufeffplain\r\ntext".encode())
    (root / "deep/b.md").write_text("intro\n\n# The Title #\n\nbody")
    (root / "c.html").write_text("<title>Page</title><p>Hello <b>you</b></p>")
    (root / "d.jsonl").write_text('{"text": "one", "id": "doc-1", "title": "T"}\n\n{"text": "two"}\n')
    (root / "e.bin").write_bytes(b"\xff")
    (root / "empty.txt").write_text(" \n")
    reading = Reading([root])
    assert list(reading.documents()) == [
        Document("handbook/a.txt", "a.txt", "plain\ntext"),
        Document("handbook/c.html", "Page", "Hello you"),
        Document("doc-1", "T", "one"),
        Document("handbook/d.jsonl#3", "", "two"),
        Document("handbook/deep/b.md", "The Title", "intro\n\n# The Title #\n\nbody"),
    ]
    assert sorted(Path(path).name for path in reading.passed_over) == ["e.bin", "empty.txt"]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.bin", b"x", "in no form that can be indexed"),
        ("a.txt", b"\xff\xfe", "invalid UTF-8 at byte 0 in .*a.txt"),
        ("a.jsonl", b'{"text": "a"}\n{"text', r"a line is not JSON in .*a.jsonl:2"),
        (
            "a.jsonl",
            b'{"body": "a"}',
            r"no text under 'text' in .*a.jsonl:1: name the key that holds it with --text-field",
        ),
        ("a.jsonl", b"[1]", "no text under 'text'"),
    ],
)
def test_a_faulty_file_is_told_by_its_place(tmp_path: Path, name: str, content: bytes, fault: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=fault):
        read(tmp_path / name)


def test_a_path_that_is_not_there_and_a_source_given_twice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="there is no file or folder"):
        read(tmp_path / "b")
    with pytest.raises(UserError, match=r"two documents are called 'a.txt'"):
        read(tmp_path / "a.txt", tmp_path / "a.txt")


def test_html_gives_what_is_seen() -> None:
    page = """<!doctype html><html><head><title>A &amp; B</title><style>p{}</style></head><body>
    <script>evil()</script><h1>Head</h1><p>one <i>two</i>
    three</p><ul><li>a</li><li>b</li></ul><noscript>no</noscript>&lt;tag&gt;<br>end"""
    assert html_text(page) == ("A & B", "Head\n\none two three\n\na\n\nb\n\n<tag>\n\nend")


@given(
    st.lists(st.sampled_from(["<p>", "</p>", "<script>", "</script", "<", "&amp;", "text", "<body>", "<!--", "]]>"]))
)
def test_broken_markup_never_fails(pieces: list[str]) -> None:
    title, seen = html_text("".join(pieces))
    assert title == ""
    assert seen.count("text") <= pieces.count("text")
    if not {"<script>", "<!--", "<", "</script"} & set(pieces):  # nothing hides it, and no tag is left open
        assert seen.count("text") == pieces.count("text")
