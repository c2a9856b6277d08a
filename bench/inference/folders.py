"""Where the measurements keep what they make, and find the peers."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path


def add_folders(parser: ArgumentParser) -> None:
    """Add ``--work`` and ``--peers``, both below the user's cache by default."""
    home = Path("~/.cache/fulmen-bench").expanduser()
    parser.add_argument("--work", type=Path, default=home, help="weights, conversions and logs, kept (%(default)s)")
    parser.add_argument("--peers", type=Path, default=home / "peers", help="where peers are installed (%(default)s)")
