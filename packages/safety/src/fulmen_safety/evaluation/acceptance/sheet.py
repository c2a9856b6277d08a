"""The sheet for the people who judge: a CSV file with a row a text, to be filled in and read back.

The column "ok" takes yes or no (also 1, 0, y, n, 是, 否). Rows are found again by their id, which is a hash of what was
judged: a row whose texts were changed is refused.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fulmen_core.errors import UserError

COLUMNS = ("id", "part", "question", "text", "ok", "remark")
_ANSWERS = {"yes": True, "y": True, "1": True, "是": True, "no": False, "n": False, "0": False, "否": False, "": None}
#: A spreadsheet takes a cell that begins like this for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One text for people to judge: of the corpus, or an answer with its question."""

    part: str  # "corpus" or "answer"
    question: str
    text: str

    @property
    def id(self) -> str:
        """A hash of the row's content."""
        return hashlib.sha256("\x1f".join((self.part, self.question, self.text)).encode()).hexdigest()[:16]


def write_sheet(rows: Iterable[SheetRow]) -> str:
    """Return the sheet as CSV, with a byte order mark, without which Excel misreads Chinese."""
    file = io.StringIO()
    file.write("\ufeff")
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow((row.id, row.part, _inert(row.question), _inert(row.text), "", ""))
    return file.getvalue()


def read_sheet(path: Path, expected: Mapping[str, SheetRow]) -> dict[str, bool | None]:
    """Return id -> what people said, None where they said nothing.

    Args:
        expected: id -> row, of the evidence that the sheet belongs to.

    Raises:
        UserError: it cannot be read, is no sheet, has a row of another test, or an answer that is neither yes nor no.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"invalid UTF-8 at byte {error.start}", where=str(path), remedy="save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"cannot read {path}", remedy=error.strerror or str(error)) from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if not {"id", "ok"} <= set(reader.fieldnames or ()):
        remedy = f"its columns are {', '.join(COLUMNS)}"
        raise UserError("it has no columns 'id' and 'ok'", where=str(path), remedy=remedy)
    said: dict[str, bool | None] = dict.fromkeys(expected)
    for row in reader:
        where = f"{path}:{reader.line_num}"
        key, answer = (row["id"] or "").strip(), (row["ok"] or "").strip().lower()
        if key not in expected:
            raise UserError(f"the id {key!r} is of no text of this test", where=where, remedy="use its own sheet")
        kept = expected[key]
        if row.get("text") not in (None, _inert(kept.text)) or row.get("question") not in (None, _inert(kept.question)):
            raise UserError("the text was changed", where=where, remedy="judge what the system said, as it is")
        if answer not in _ANSWERS:
            raise UserError(f"{row['ok']!r} is neither yes nor no", where=where, remedy="fill in yes or no")
        said[key] = _ANSWERS[answer]
    return said


def _inert(text: str) -> str:
    """The text as a cell that no spreadsheet computes, with line ends that survive one."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(_FORMULA) else text
