"""What the tests of core share: a folder of distributions that look installed, without installing anything."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from fulmen_core import entry_points, registry


class Site:
    """A folder on ``sys.path`` with ``.dist-info`` folders and modules, as pip would have left them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self,
        distribution: str,
        entry_points: Mapping[str, Mapping[str, str]],
        modules: Mapping[str, str] | None = None,
        version: str = "1.2.3",
    ) -> None:
        """Lay down a distribution: `entry_points` maps group to name to value, `modules` dotted name to source."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        sections = (
            "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
            for group, points in entry_points.items()
        )
        (info / "entry_points.txt").write_text("\n\n".join(sections) + "\n")
        for name, source in (modules or {}).items():
            path = self.folder.joinpath(*name.split(".")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))

    def imported(self) -> set[str]:
        """The modules of this folder that are in ``sys.modules``."""
        inside = str(self.folder)
        return {name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(inside)}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An importable folder that is all the registry sees; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(registry, "read_entries", partial(entry_points.read_entries, [str(folder)]))
    made = Site(folder)
    yield made
    for name in made.imported():
        del sys.modules[name]
