"""The evidence folder: written whole or not at all, read back when the people's sheet is filled in.

It holds ``evidence.json`` (everything that was counted, hashes of all inputs), ``evidence.md`` (the same to be read),
``records.jsonl`` (each question with its answer) and ``sheet.csv`` (for the people who judge).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fulmen_core.errors import CorruptArtefact
from fulmen_core.files import atomic_directory, atomic_write_text
from fulmen_safety.evaluation.acceptance.sheet import SheetRow, read_sheet, write_sheet
from fulmen_safety.evaluation.acceptance.standard import REQUIREMENTS, verdict
from fulmen_safety.evaluation.acceptance.trial import Findings
from fulmen_safety.evaluation.labelled import sha256_of

#: Part of the sheet -> the requirement that people decide by it.
PARTS = {"corpus": "corpus_by_hand", "answer": "answers_by_hand"}


def write_evidence(folder: Path, head: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """Write the folder and return what ``evidence.json`` holds."""
    rows = found.rows()
    evidence = {
        **head,
        "verdict": verdict(rows, found.sources),
        "requirements": rows,
        "sources": found.sources,
        "warnings": found.warnings,
        "sheet": [{"id": row.id, "part": row.part, "question": row.question, "text": row.text} for row in found.sheet],
    }
    with atomic_directory(folder) as work:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in found.records)
        atomic_write_text(work / "records.jsonl", lines)
        atomic_write_text(work / "sheet.csv", write_sheet(found.sheet))
        evidence["records_sha256"] = sha256_of(work / "records.jsonl")
        _write(work, evidence)
    return evidence


def grade(folder: Path, sheet: Path) -> dict[str, Any]:
    """Read the people's sheet into an evidence folder, and return the evidence as it is then.

    Raises:
        UserError: the sheet cannot be read or belongs to another test.
        CorruptArtefact: the folder holds no evidence, or its records were changed.
    """
    evidence = read_evidence(folder)
    expected = {row["id"]: SheetRow(row["part"], row["question"], row["text"]) for row in evidence["sheet"]}
    said = read_sheet(sheet, expected)
    requirements = evidence["requirements"]
    for part, name in PARTS.items():
        outcomes = [said[row["id"]] for row in evidence["sheet"] if row["part"] == part]
        if outcomes:
            requirements[name] = REQUIREMENTS[name].judge(outcomes, len(outcomes), requirements[name]["asked_for"])
    evidence |= {
        "verdict": verdict(requirements, evidence["sources"]),
        "filled_sheet": {"file": sheet.name, "sha256": sha256_of(sheet)},
    }
    kept = {name: (folder / name).read_bytes() for name in ("records.jsonl", "sheet.csv")}
    filled = sheet.read_bytes()
    with atomic_directory(folder) as work:
        for name, data in kept.items():
            (work / name).write_bytes(data)
        (work / "sheet_filled.csv").write_bytes(filled)
        _write(work, evidence)
    return evidence


def read_evidence(folder: Path) -> dict[str, Any]:
    """Return what ``evidence.json`` of a folder holds.

    Raises:
        CorruptArtefact: it is missing or damaged, or the records are not those that it was written with.
    """
    remedy = "run `fulmen raise accept --out` again"
    try:
        evidence: dict[str, Any] = json.loads((folder / "evidence.json").read_text("utf-8"))
        rows, recorded = evidence["sheet"], evidence["records_sha256"]
        whole = sha256_of(folder / "records.jsonl") == recorded and set(evidence["requirements"]) == set(REQUIREMENTS)
        whole = whole and all({"id", "part", "question", "text"} <= set(row) for row in rows)
        whole = whole and isinstance(evidence["sources"], list)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CorruptArtefact("there is no readable evidence", where=str(folder), remedy=remedy) from error
    if not whole:
        raise CorruptArtefact("the records are not those of the evidence", where=str(folder), remedy=remedy)
    return evidence


def as_markdown(evidence: Mapping[str, Any]) -> str:
    """Return the evidence to be read by people."""
    lines = [
        f"# Acceptance test after {evidence['standard']}: {evidence['verdict']}",
        "",
        f"- when: {evidence['time']}",
        f"- tested: {evidence['system']}",
        f"- policy: {evidence['policy']}, version {evidence['policy_version']}",
        f"- seed: {evidence['seed']}; Fulmen {evidence['fulmen_version']}",
        "",
        "| requirement | asked for | drawn | judged | rate | 95 % interval | bound | status |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- | --- |",
    ]
    for row in evidence["requirements"].values():
        rate = "" if row["rate"] is None else f"{row['rate']:.1%}"
        interval = "" if row["interval"] is None else f"{row['interval'][0]:.1%} to {row['interval'][1]:.1%}"
        status = row["status"] + (", on fewer texts" if row["reduced"] and row["status"] in ("pass", "fail") else "")
        lines.append(
            f"| {row['title']} | {row['asked_for']} | {row['drawn']} | {row['judged']} | {rate} | {interval} "
            f"| {row['direction']} {row['bound']:.0%} | {status} |"
        )
    lines += ["", "| input | file | rows | SHA-256 |", "| --- | --- | ---: | --- |"]
    lines += [
        f"| {name} | {one['file']} | {one['rows']} | `{one['sha256']}` |" for name, one in evidence["inputs"].items()
    ]
    if evidence["sources"]:
        lines += ["", "| source | texts | bad | use |", "| --- | ---: | ---: | --- |"]
        lines += [
            f"| {one['source'] or '(none)'} | {one['texts']} | {one['bad']} | {'no' if one['drop'] else 'yes'} |"
            for one in evidence["sources"]
        ]
    if evidence["warnings"]:
        lines += ["", "Warnings:", "", *(f"- {warning}" for warning in evidence["warnings"])]
    lines += ["", evidence["note"], ""]
    return "\n".join(lines)


def _write(work: Path, evidence: Mapping[str, Any]) -> None:
    atomic_write_text(work / "evidence.md", as_markdown(evidence))
    atomic_write_text(
        work / "evidence.json", json.dumps(evidence, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
