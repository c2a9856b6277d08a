"""An index answers in both languages, is brought up to date without doing anything twice, and is whole or absent."""

from __future__ import annotations

import random
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_tool_retrieval.chunking import ChunkSizes
from fulmen_tool_retrieval.documents import Document
from fulmen_tool_retrieval.fusion import fused
from fulmen_tool_retrieval.indexing import IndexOptions, update_index
from fulmen_tool_retrieval.search import MODES, Index, Mode


def sources(path: Path, query: str, mode: Mode = "hybrid", top: int = 3) -> list[str]:
    index = Index(path)
    try:
        return [hit.source for hit in index.search(query, top, mode)]
    finally:
        index.close()


@pytest.fixture
def path(tmp_path: Path, handbook: list[Document]) -> Path:
    update_index(tmp_path / "handbook.db", handbook, IndexOptions())
    return tmp_path / "handbook.db"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("query", "source"),
    [
        ("how many days of holiday do I get", "leave.md"),
        ("WIREGUARD port?", "vpn.md"),
        ("where is the lawnmower", "trees.md"),
        ("年假有几天", "请假.md"),
        ("打印机在哪里", "网络.md"),
        ("Ｗireguard 連接", "网络.md"),
    ],
)
def test_a_question_finds_its_passage(path: Path, mode: Mode, query: str, source: str) -> None:
    found = sources(path, query, mode)
    assert source in found[:2]
    assert found[0] == source or query == "Ｗireguard 連接"


def test_a_hit_says_where_it_stands(path: Path, handbook: list[Document]) -> None:
    texts = {document.source: document.text for document in handbook}
    index = Index(path)
    for hit in index.search("holiday network 年假", 5):
        assert texts[hit.source][hit.start : hit.end] == hit.text
    index.close()


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_query_is_taken_for_syntax(tmp_path_factory: pytest.TempPathFactory, query: str) -> None:
    place = tmp_path_factory.getbasetemp() / "any.db"
    if not place.exists():
        update_index(place, [Document("a", "", "alpha AND beta NEAR gamma")], IndexOptions())
    index = Index(place)
    index.search(query)
    assert [hit.source for hit in index.search(f'{query}" OR alpha* NOT (', mode="terms")] == ["a"]
    index.close()


def test_what_did_not_change_is_kept_and_what_is_gone_is_dropped(path: Path, handbook: list[Document]) -> None:
    assert asdict(update_index(path, handbook, IndexOptions()))["unchanged"] == 5
    leave, vpn, trees, *rest = handbook
    changed = Document(trees.source, trees.title, "The lawnmower is in the garage.")
    new = Document("cat.md", "", "The office cat is called Turing.")
    report = update_index(path, [leave, changed, new, *rest], IndexOptions())
    assert (report.added, report.changed, report.unchanged, report.removed) == (1, 1, 3, 1)
    assert (report.embedded, report.documents) == (2, 5)
    assert vpn.source not in sources(path, "vpn.example.org port 51820", top=5)
    assert sources(path, "greenhouse shed", "terms") == []
    assert sources(path, "Turing") == ["cat.md"]


def test_an_index_brought_up_to_date_answers_like_a_fresh_one(tmp_path: Path) -> None:
    chance = random.Random()
    words = ["harbour", "ship", "tea", "年假", "医生", "garden", "公司", "port"]
    corpus = [Document(str(n), "", " ".join(chance.choices(words, k=12)) + f" id{n}.") for n in range(60)]
    update_index(tmp_path / "a.db", corpus[:40], IndexOptions())
    update_index(tmp_path / "a.db", corpus[20:], IndexOptions())
    update_index(tmp_path / "b.db", corpus[20:], IndexOptions())
    for query in ("id25 ship", "医生 公司", "garden id55 harbour"):
        assert sources(tmp_path / "a.db", query, "terms") == sources(tmp_path / "b.db", query, "terms")
    for document in corpus[20:]:
        for name in ("a.db", "b.db"):
            assert sources(tmp_path / name, document.text, "vectors", 1) == [document.source]


def test_all_vectors_are_made_again_once_the_corpus_has_grown(tmp_path: Path, handbook: list[Document]) -> None:
    many = [Document(str(n), "", f"number {n} of many") for n in range(40)]
    first = update_index(tmp_path / "a.db", many, IndexOptions())
    little = update_index(tmp_path / "a.db", [*many, handbook[0]], IndexOptions())
    much = update_index(tmp_path / "a.db", [*many, *handbook], IndexOptions())
    assert (first.embedded, little.embedded, much.embedded) == (40, 1, 45)


def test_what_goes_wrong_leaves_the_index_as_it_was(path: Path, handbook: list[Document]) -> None:
    before = path.read_bytes()

    def broken():
        yield handbook[0]
        raise UserError("the disk is on fire")

    with pytest.raises(UserError, match="on fire"):
        update_index(path, broken(), IndexOptions())
    with pytest.raises(UserError, match="no valid Unicode in x"):
        update_index(path, [Document("x", "", "a\ud800")], IndexOptions())
    with pytest.raises(UserError, match=r"made with chunks .* --fresh"):
        update_index(path, handbook, IndexOptions(ChunkSizes(100, 10)))
    assert path.read_bytes() == before
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    assert update_index(path, handbook[:2], IndexOptions(ChunkSizes(100, 10)), fresh=True).documents == 2


def test_a_searcher_keeps_its_index_while_a_new_one_takes_its_place(path: Path, handbook: list[Document]) -> None:
    index = Index(path)
    update_index(path, handbook[1:], IndexOptions())
    assert index.search("holiday", 1)[0].source == "leave.md"
    assert "leave.md" not in sources(path, "holiday", top=5)
    index.close()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_damaged_file_is_told_in_a_sentence(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CorruptArtefact, match="damaged or no index"):
        Index(path).search("holiday", 5)


def test_another_programs_file_and_none_at_all_are_refused(tmp_path: Path) -> None:
    import sqlite3

    sqlite3.connect(tmp_path / "other.db").executescript("CREATE TABLE t (x)").close()
    with pytest.raises(CorruptArtefact, match="another program's file"):
        Index(tmp_path / "other.db")
    with pytest.raises(UserError, match="there is no index"):
        Index(tmp_path / "none.db")


def test_an_index_of_full_text_alone_has_no_vectors(tmp_path: Path, handbook: list[Document]) -> None:
    update_index(tmp_path / "a.db", handbook, IndexOptions(embedder=None))
    assert sources(tmp_path / "a.db", "holiday")[0] == "leave.md"
    with pytest.raises(UserError, match="no vectors"):
        sources(tmp_path / "a.db", "holiday", "vectors")


def test_passages_that_overlap_are_given_once(tmp_path: Path) -> None:
    text = "Alpha is first. Beta is second. Gamma is third. Delta is fourth. Epsilon is fifth."
    update_index(tmp_path / "a.db", [Document("a", "", text)], IndexOptions(ChunkSizes(34, 17)))
    index = Index(tmp_path / "a.db")
    hits = index.search("alpha beta gamma delta epsilon", 10)
    assert len(hits) >= 2
    spans = sorted((hit.start, hit.end) for hit in hits)
    assert all(2 * (one[1] - two[0]) <= min(one[1] - one[0], two[1] - two[0]) for one, two in pairwise(spans))
    index.close()


@given(st.lists(st.lists(st.integers(0, 20), unique=True, max_size=8), max_size=3))
def test_fusion_ranks_everything_once_and_keeps_what_all_agree_on(rankings: list[list[int]]) -> None:
    order = [id for id, _ in fused(rankings)]
    assert sorted(order) == sorted(set().union(*rankings))
    if rankings and all(ranking == rankings[0] for ranking in rankings):
        assert order == rankings[0]
