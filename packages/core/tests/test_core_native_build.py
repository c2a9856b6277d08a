"""C++ of a backend is compiled once for this processor, tried before it is kept, and refused in a sentence."""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fulmen_core import native_build
from fulmen_core.native_build import Compiler, Native, NativeUnavailable, build_library, find_compiler, is_built

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="there is no C++ compiler here"
)

GOOD = '#include "seven.hpp"\nextern "C" int fulmen_features() { return SEVEN; }\n'


@pytest.fixture
def native(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Native:
    """A library of one source and one header of another folder, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, text in {"own/one.cpp": GOOD, "shared/seven.hpp": "#define SEVEN 7\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    shared = tmp_path / "shared"
    return Native("sevens", tmp_path / "own", headers=shared, flags=(f"-I{shared}",))


def kept(native: Native) -> list[str]:
    return sorted(path.name for path in native_build.cache_folder().glob("*"))


def test_a_library_is_compiled_once_and_anew_when_anything_changes(native: Native) -> None:
    compiler = find_compiler()
    assert not is_built(native, compiler)
    first = build_library(native)
    assert is_built(native, compiler)
    assert ctypes.CDLL(str(first)).fulmen_features() == 7
    made = first.stat().st_mtime_ns
    assert build_library(native) == first
    assert first.stat().st_mtime_ns == made
    others = [build_library(replace(native, flags=(*native.flags, "-DOTHER")))]
    assert native.headers
    (native.headers / "seven.hpp").write_text("#define SEVEN 8\n")
    others.append(build_library(native))
    assert ctypes.CDLL(str(others[1])).fulmen_features() == 8
    (native.sources / "one.cpp").write_text(GOOD + "// a remark\n")
    others.append(build_library(native))
    assert len({first, *others}) == 4
    assert kept(native) == sorted(path.name for path in (first, *others))  # and nothing of the compiling


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("int fulmen_features() { return nothing; }", "error.*nothing"),
        ('extern "C" int fulmen_features() { __builtin_trap(); }', "does not run here"),
        ("int other() { return 0; }", "does not run here"),
    ],
)
def test_what_does_not_compile_or_run_is_refused_and_not_kept(native: Native, source: str, said: str) -> None:
    (native.sources / "one.cpp").write_text(source)
    with pytest.raises(NativeUnavailable, match=said):
        build_library(native)
    assert kept(native) == []


def test_a_compiler_that_is_not_there_or_fails_is_a_sentence(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NativeUnavailable, match="one that fails failed"):
        build_library(native, Compiler("/bin/false", "one that fails"))
    monkeypatch.setattr(native_build.shutil, "which", lambda name: None)
    with pytest.raises(NativeUnavailable, match=r"there is no C\+\+ compiler"):
        build_library(native)


def test_a_folder_that_cannot_be_written_is_named(native: Native, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NativeUnavailable, match="file/cache cannot be written"):
        build_library(native, folder=tmp_path / "file" / "cache")
