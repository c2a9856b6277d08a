"""Exported artefacts: folders with a manifest of ours, which is how an older one is told from a stranger's folder."""

from __future__ import annotations

from pathlib import Path

from fulmen_core.errors import UserError

#: The manifest that every exporter writes; its `format` says which backends load the folder.
MANIFEST_FILE = "fulmen_artefact.json"


def is_artefact(directory: Path) -> bool:
    """Whether the folder holds an artefact's manifest, whole or not."""
    return (directory / MANIFEST_FILE).is_file()


def check_replaceable(out: Path) -> None:
    """Refuse to export over anything but an older artefact or an empty folder: what is there is deleted.

    Raises:
        UserError: `out` is a file, or a folder with other contents.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file", remedy="name a new folder for the artefact")
    if not is_artefact(out) and any(out.iterdir()):
        raise UserError(
            f"the folder {out} is not empty and holds no artefact",
            remedy="name a new folder: an export replaces all that is there",
        )
