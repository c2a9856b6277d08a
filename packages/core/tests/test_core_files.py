"""Files are whole or absent, and hashes tell trees apart by names and contents alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import (
    atomic_directory,
    atomic_file,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    hash_file,
    hash_tree,
    read_json,
)

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8
)
NAMES = NAMES.filter(lambda name: name not in (".", ".."))
TREES = st.dictionaries(NAMES, st.binary(max_size=40), max_size=5)


def lay(root: Path, tree: dict[str, bytes]) -> Path:
    root.mkdir(parents=True)
    for name, content in tree.items():
        (root / name).write_bytes(content)
    return root


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_has_its_content_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    atomic_write_text(path, "漢字\r\n")
    assert path.read_bytes() == "漢字\r\n".encode()
    assert names(path.parent) == ["file.txt"]


def test_a_written_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    atomic_write_bytes(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"loss": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic_write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert read_json(tmp_path / "a.json", "summary") == {"loss": 1.5}
    assert names(tmp_path) == ["a.json"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (lambda path: atomic_write_text(path, ""), lambda path: atomic_directory(path).__enter__()):
        with pytest.raises(UserError, match=r"file/inside cannot be written: (Not a directory|File exists)"):
            write(tmp_path / "file" / "inside")


def test_a_directory_appears_whole_when_its_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "out"
    lay(out, {"old": b"1"})
    with atomic_directory(out) as work:
        (work / "new").write_bytes(b"2")
        assert names(out) == ["old"]
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_directory_whose_block_raises_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    lay(out, {"old": b"1"})

    def interrupted() -> None:
        with atomic_directory(out) as work:
            (work / "new").write_bytes(b"2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(out) == ["old"]
    assert names(tmp_path) == ["out"]


def test_a_directory_can_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with atomic_directory(tmp_path / "out") as work:
        (work / "new").write_bytes(b"2")
    assert names(tmp_path / "out") == ["new"]


def test_a_process_killed_while_it_replaces_files_never_leaves_a_mixture(tmp_path: Path) -> None:
    """Every file of a generation carries its number; whatever instant the kill hits, all that is visible agree."""
    code = """
        import itertools, sys
        from pathlib import Path
        from fulmen_core.files import atomic_directory, atomic_write_text
        root = Path(sys.argv[1])
        for generation in itertools.count():
            atomic_write_text(root / "single", f"{generation} " * 2000)
            with atomic_directory(root / "tree") as work:
                for name in "abc":
                    (work / name).write_text(str(generation))
    """
    for delay in (0.0, 0.003, 0.011):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)])
        while not (tmp_path / "tree").exists():
            time.sleep(0.005)
        time.sleep(0.05 + delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        words = (tmp_path / "single").read_text().split()
        assert len(words) == 2000
        assert len(set(words)) == 1
        if (tmp_path / "tree").exists():  # it is absent for the instant between two renames, and never half there
            assert len({(tmp_path / "tree" / name).read_text() for name in "abc"}) == 1


@settings(max_examples=50, deadline=None)
@given(TREES, TREES)
def test_two_trees_hash_alike_exactly_when_their_names_and_contents_agree(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("trees")
    assert (hash_tree(lay(root / "one", one)) == hash_tree(lay(root / "other", other))) == (one == other)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=40), min_size=1, max_size=5), st.data())
def test_a_tree_hash_notices_any_single_changed_byte(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes], data: st.DataObject
) -> None:
    root = lay(tmp_path_factory.mktemp("tree") / "root", tree)
    before = hash_tree(root)
    name = data.draw(st.sampled_from(sorted(tree)))
    content = bytearray(tree[name] or b"\0")
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (root / name).write_bytes(content)
    assert hash_tree(root) != before


def test_a_tree_hash_sees_depth_and_empty_folders(tmp_path: Path) -> None:
    lay(tmp_path / "flat", {"ab": b""})
    (lay(tmp_path / "deep", {}) / "a").mkdir()
    (tmp_path / "deep" / "a" / "b").write_bytes(b"")
    (lay(tmp_path / "hollow", {"ab": b""}) / "empty").mkdir()
    assert len({hash_tree(tmp_path / name) for name in ("flat", "deep", "hollow")}) == 3


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_tree(tmp_path / "abc") == hash_file(tmp_path / "abc")


@pytest.mark.parametrize("damage", [b'{"a": 1', b"", b"\xff\xfe{}", b"{'a': 1}"])
def test_json_that_is_cut_off_or_is_no_text_is_a_corrupt_artefact(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "m.json").write_bytes(damage)
    with pytest.raises(CorruptArtefact, match=r"^the model config is not valid JSON in .*m\.json: "):
        read_json(tmp_path / "m.json", "model config")


def test_json_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^there is no model config at .*m\.json: check the path$"):
        read_json(tmp_path / "m.json", "model config")


def test_a_file_written_piece_by_piece_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "index.db"
    with atomic_file(target) as work:
        work.write_bytes(b"one")
        assert not target.exists()
    assert target.read_bytes() == b"one"
    with pytest.raises(IsADirectoryError), atomic_file(target) as work:
        work.write_bytes(tmp_path.read_bytes())
    assert target.read_bytes() == b"one"
    assert [path.name for path in target.parent.iterdir()] == ["index.db"]
