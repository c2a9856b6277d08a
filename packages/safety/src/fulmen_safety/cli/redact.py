"""`fulmen raise redact`: a text without what tells about people, and without secrets."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fulmen_core.cli import arguments, context, output
from fulmen_core.errors import UserError
from fulmen_safety.cli.policy_option import add_policy, given_policy
from fulmen_safety.redaction import Redaction

#: Bytes read at a time.
PIECE = 16_384

#: Detectors that know ways of replacing what they find.
_REPLACING = ("pii", "pii-names")


def run(argv: Sequence[str]) -> int:
    """Read text on standard input, piece by piece, and print it redacted; with ``--json`` the spans as well, with
    offsets into what was read.

    Raises:
        UserError: wrong arguments, text that is not UTF-8, a faulty policy, a detector that fails or cannot be used.
    """
    parser = arguments.parser("fulmen raise redact", "replace personal data and secrets in a text", recipe=False)
    add_policy(parser)
    parser.add_argument("--kinds", metavar="KIND,...", help="what to replace; default: everything that is found")
    parser.add_argument(
        "--replacement",
        choices=("label", "mask", "surrogate"),
        help="[EMAIL], ***@b.org, or another value of the same form, the same for the same value; default: label",
    )
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="the secret that decides the surrogates")
    options = parser.parse_args(argv)
    kinds = tuple(kind.strip() for kind in (options.kinds or "").split(",") if kind.strip())
    if options.kinds is not None and not kinds:
        raise UserError("--kinds names nothing", where="the command line", remedy="name kinds, or leave it out")
    settings = _replacing(options.replacement, options.key_file)
    redaction = Redaction(context.registry(), given_policy(options), kinds=kinds, settings=settings)
    redacted = redaction.redacted(_decoded(sys.stdin.buffer))
    if options.json:
        text = "".join(redacted)
        spans = [{"start": start, "end": end, "kind": kind} for start, end, kind in redaction.spans]
        output.print_json({"text": text, "spans": spans})
        return 0
    for piece in redacted:
        sys.stdout.write(piece)
    return 0


def _replacing(replacement: str | None, key_file: Path | None) -> dict[str, dict[str, Any]]:
    settings: dict[str, Any] = {"replacement": replacement} if replacement else {}
    if key_file is not None:
        if replacement != "surrogate":
            raise UserError("--key-file goes with --replacement surrogate", where="the command line")
        try:
            settings["surrogate_key"] = key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError("the key cannot be read", where=str(key_file), remedy="name a text file") from error
        if not settings["surrogate_key"]:
            raise UserError("the key is empty", where=str(key_file), remedy="write a long random text into it")
    return dict.fromkeys(_REPLACING, settings) if settings else {}


def _decoded(stream: BinaryIO) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    while True:
        piece = stream.read(PIECE)
        waiting = len(decoder.getstate()[0])
        try:
            yield decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            what = f"invalid UTF-8 at byte {done - waiting + error.start}"
            raise UserError(what, where="standard input", remedy="convert it to UTF-8") from error
        if not piece:
            return
        done += len(piece)
