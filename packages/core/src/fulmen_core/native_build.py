"""Compiles a backend's C++ for this very processor, once, into the user's cache; and says so if it cannot.

A library is kept under a name that follows from everything it depends on: sources, compiler, flags, processor. It is
tried in a process of its own before it gets that name, so that an instruction which this machine lacks ends that
process and not the caller's.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

#: Of every library.
FLAGS = (
    "-O3",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-pthread",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-w",
)
_COMPILERS = ("g++", "c++", "clang++")
_PATIENCE = 600  # seconds; a compilation takes about 15


class NativeUnavailable(Exception):
    """Native code cannot be used here; the message says why."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C++ compiler: its path, and the first line of what it says of itself."""

    path: str
    version: str


def find_compiler() -> Compiler:
    """Return the first compiler on the path.

    Raises:
        NativeUnavailable: there is none, or it does not run.
    """
    for name in _COMPILERS:
        path = shutil.which(name)
        if path is None:
            continue
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout:
            return Compiler(path, done.stdout.splitlines()[0])
    raise NativeUnavailable("there is no C++ compiler (g++ or clang++)")


def cache_folder() -> Path:
    """Where compiled kernels are kept: the platform's cache folder, which the environment defines on Linux."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fulmen" / "native"


@dataclass(frozen=True, slots=True)
class Native:
    """What a library is made of.

    Args:
        name: what the log calls it, e.g. "the CPU kernels".
        sources: a folder: all its ``.cpp`` are compiled. One of them defines ``int fulmen_features()``.
        headers: another folder whose headers they include.
        flags: beyond `FLAGS` and those that name the processor.
    """

    name: str
    sources: Path
    headers: Path | None = None
    flags: tuple[str, ...] = ()

    def all_flags(self) -> tuple[str, ...]:
        """Return everything that the compiler is told."""
        return (*FLAGS, *target_flags(), *self.flags)


def is_built(native: Native, compiler: Compiler) -> bool:
    """Whether this machine has the library, made by `compiler`, already."""
    return _place(native, compiler, cache_folder()).is_file()


def build_library(native: Native, compiler: Compiler | None = None, folder: Path | None = None) -> Path:
    """Return the compiled library, compiling it first if this machine has not yet.

    Args:
        native: what to compile.
        compiler: None takes the first on the path.
        folder: where to keep it; None is `cache_folder()`.

    Raises:
        NativeUnavailable: there is no compiler, it fails, or what it makes does not run here.
    """
    compiler = compiler or find_compiler()
    folder = folder or cache_folder()
    library = _place(native, compiler, folder)
    if library.is_file():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = _compile(native, compiler, Path(scratch))
            _try_out(made)
            made.replace(library)
    except OSError as error:
        raise NativeUnavailable(f"{folder} cannot be written: {error.strerror or error}") from error
    return library


def _place(native: Native, compiler: Compiler, folder: Path) -> Path:
    return folder / f"fulmen-{_key(native, compiler)}.so"


def _compile(native: Native, compiler: Compiler, scratch: Path) -> Path:
    """Compile all sources at once, one process each, and link them."""
    logger.info("compiling %s for this processor, once; it takes some seconds", native.name)
    flags = native.all_flags()
    sources = sorted(native.sources.glob("*.cpp"))
    objects = [scratch / f"{source.stem}.o" for source in sources]
    running = [
        subprocess.Popen([compiler.path, *flags, "-c", str(source), "-o", str(made)], stderr=subprocess.PIPE, text=True)
        for source, made in zip(sources, objects, strict=True)
    ]
    complaints = [_outcome(process) for process in running]
    made = scratch / "library.so"
    link = [compiler.path, *flags, *map(str, objects), "-o", str(made)]
    if not any(complaints):
        complaints.append(_outcome(subprocess.Popen(link, stderr=subprocess.PIPE, text=True)))
    for complaint in filter(None, complaints):
        raise NativeUnavailable(f"{compiler.version} failed: {complaint}")
    return made


def _outcome(process: subprocess.Popen[str]) -> str:
    try:
        _, errors = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"it did not finish within {_PATIENCE} s"
    if process.returncode == 0:
        return ""
    lines = [line for line in errors.splitlines() if "error" in line] or errors.splitlines()
    return lines[0] if lines else f"exit code {process.returncode}"


def _try_out(library: Path) -> None:
    question = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).fulmen_features())"
    done = subprocess.run(
        [sys.executable, "-c", question, str(library)], capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    if done.returncode != 0:
        raise NativeUnavailable(f"the compiled library does not run here (exit code {done.returncode})")


def target_flags() -> tuple[str, ...]:
    """Return the flags by which a compiler makes code for this very processor."""
    machine = platform.machine().lower()
    return ("-march=native",) if machine in ("x86_64", "amd64") else ("-mcpu=native",)


def _key(native: Native, compiler: Compiler) -> str:
    digest = hashlib.sha256()
    headers = native.headers.glob("*.hpp") if native.headers else ()
    for source in sorted({*native.sources.iterdir(), *headers}):
        digest.update(source.name.encode() + source.read_bytes())
    for part in (compiler.path, compiler.version, *native.all_flags(), platform.machine(), processor_features()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


def processor_features() -> str:
    """Return what the processor can do, in the system's words, parted by blanks; elsewhere than on Linux its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
