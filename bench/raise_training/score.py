"""Lets the teacher score rows, which then are learned from as it thinks and not as they are labelled.

python bench/raise_training/score.py --encoder DIR --teacher teacher.safetensors --rows FILE --out FILE
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file
from teacher import Teacher, read, write_scored


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--encoder", type=Path, required=True, help="the folder that the teacher was made of")
    parser.add_argument("--teacher", type=Path, required=True, help="its weights, by `teacher.py --weights`")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    teacher = Teacher(given.encoder)
    teacher.load_state_dict(load_file(given.teacher))
    write_scored(given.out, teacher, read(given.rows))


if __name__ == "__main__":
    main()
