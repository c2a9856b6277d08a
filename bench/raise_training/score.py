"""Lets the teachers score rows, which then are learned from as they think and not as they are labelled.

python bench/raise_training/score.py --encoder DIR --teacher teacher.safetensors --rows FILE --out FILE
"""

from __future__ import annotations

import argparse
from pathlib import Path

from teacher import Teachers, read, write_scored


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--encoder", type=Path, required=True, help="the folder that the teachers were made of")
    parser.add_argument("--teacher", type=Path, required=True, help="their weights, by `teacher.py --weights`")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    write_scored(given.out, Teachers.load(given.encoder, given.teacher), read(given.rows))


if __name__ == "__main__":
    main()
