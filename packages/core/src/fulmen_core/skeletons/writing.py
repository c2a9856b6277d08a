"""Writes a distribution from the templates beside this module: whole, or not at all."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Literal, get_args

from fulmen_core.errors import UserError
from fulmen_core.files import atomic_directory

Kind = Literal["backend", "detector", "source", "benchmark"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_SUFFIX = ".tmpl"


@dataclass(frozen=True)
class Skeleton:
    """A plugin of one kind and name.

    Args:
        kind: what it brings.
        name: of the backend, detector, ...: lower-case letters and digits, with single hyphens or underscores between.

    Raises:
        UserError: the name is none.
    """

    kind: Kind
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > 40:
            what = f"{self.name!r} is no name for a {self.kind}"
            remedy = "it begins with a letter and has lower-case letters, digits and single hyphens, 40 at most"
            raise UserError(what, remedy=remedy)
        if keyword.iskeyword(self.name):
            raise UserError(f"{self.name!r} is a word of Python", remedy="choose another name")

    @property
    def distribution(self) -> str:
        """The name of the distribution. It does not begin with ``fulmen-``: those are released together."""
        return f"{self.name.replace('_', '-')}-fulmen-{self.kind}"

    @property
    def package(self) -> str:
        """The name of the package."""
        return self.distribution.replace("-", "_")

    def files(self) -> dict[str, str]:
        """Return the content of every file by its path in the folder."""
        words = {
            "name": self.name,
            "distribution": self.distribution,
            "package": self.package,
            "Class": "".join(part.capitalize() for part in re.split("[-_]", self.name)),
            "core": ".".join([*version("fulmen-core").split(".")[:2], "0"]),
        }
        return dict(sorted(_rendered(resources.files(__package__) / "templates" / self.kind, "", words)))

    def write(self, folder: Path) -> None:
        """Write the distribution into a new folder, whole or not at all.

        Raises:
            UserError: the folder is there already, or cannot be written.
        """
        if folder.exists() or folder.is_symlink():
            raise UserError(f"{folder} is there already", where="--out", remedy="name a new folder")
        with atomic_directory(folder) as temporary:
            for path, content in self.files().items():
                file = temporary / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(content, encoding="utf-8")


def _rendered(folder: Traversable, prefix: str, words: dict[str, str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in folder.iterdir():
        name = words["package"] if entry.name == "package" else entry.name
        if entry.is_dir():
            found += _rendered(entry, f"{prefix}{name}/", words)
        elif name.endswith(_SUFFIX):
            found.append((prefix + name.removesuffix(_SUFFIX), Template(entry.read_text("utf-8")).substitute(words)))
    return found
