"""Tests a detector against its contract. For authors of detectors: call `faults` on texts of every kind, best with
hypothesis, and compare what a guard has `delivered` of an answer in pieces with what it makes of the whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from fulmen_core.guard import Finding, Guard
from fulmen_safety.detector import Detector, IncrementalDetector, StreamingDetector, incremental

#: Sizes of the pieces in which a stream is read.
_PIECES = (1, 2, 7)


def faults(detector: Detector, text: str, *, categories: Collection[str]) -> list[str]:
    """Return every way in which `detector` breaks its contract on `text` and on its beginnings, one sentence each.

    Args:
        categories: those that the detector declares in its `DetectorInfo`.
    """
    found = list(detector.scan(text))
    told = [f"scan gave {list(detector.scan(text))} the second time"] if list(detector.scan(text)) != found else []
    for one in found:
        if not 0 <= one.start < one.end <= len(text):
            told.append(f"the span {one.start}:{one.end} lies outside of {len(text)} characters")
        if not 0.0 <= one.score <= 1.0:
            told.append(f"the score {one.score} lies outside of 0 to 1")
        if one.category not in categories:
            told.append(f"the category {one.category!r} is not declared")
    if isinstance(detector, StreamingDetector):
        told += _unsettled(detector, text, found) + _not_local(detector, text, found)
    if (reader := incremental(detector)) is not None:
        told += [fault for size in _PIECES for fault in _misread(reader, text, found, size)]
    return told


def delivered(guard: Guard, pieces: Iterable[str], messages: Sequence[Mapping[str, str]] = ()) -> str:
    """Return what a guard delivers of an answer that comes in pieces, up to where the guard stops it.

    Args:
        messages: what it answers.
    """
    stream = guard.open_output(messages)
    text = ""
    for piece in pieces:
        chunk = stream.feed(piece)
        text += chunk.text
        if chunk.stop:
            return text
    return text + stream.finish().text


def _unsettled(detector: StreamingDetector, text: str, found: Sequence[Finding]) -> list[str]:
    told = []
    for cut in range(len(text) + 1):
        beginning = text[:cut]
        hold = detector.hold_from(beginning)
        if not 0 <= hold <= cut:
            told.append(f"hold_from gave {hold} for {cut} characters")
            continue
        early = [one for one in detector.scan(beginning) if one.start < hold]
        late = [one for one in found if one.start < hold]
        if _sorted(early) != _sorted(late):
            told.append(f"{beginning!r} settles {hold} characters with {early}, yet the whole text has {late}")
    return told


def _not_local(detector: StreamingDetector, text: str, found: Sequence[Finding]) -> list[str]:
    told = []
    for cut in range(1, len(text) + 1):
        safe = cut + detector.look_behind
        whole = [one for one in found if one.start >= safe]
        part = [_shifted(one, cut) for one in detector.scan(text[cut:]) if one.start + cut >= safe]
        if _sorted(whole) != _sorted(part):
            told.append(f"forgetting {cut} characters changes {whole} into {part}")
    return told


def _misread(detector: IncrementalDetector, text: str, found: Sequence[Finding], size: int) -> list[str]:
    """Read the text in pieces as a guard does, which forgets what it may, and compare with the text read at once."""
    follower = detector.follow()
    gone = since = dropped = 0  # places in the text, but for the last
    for end in range(size, len(text) + size, size):
        seen, hold = follower.read(text[gone:end], dropped, since - gone)
        held, due = gone + hold, max(since, detector.hold_from(text[:end]))
        wanted = [one for one in found if since <= one.start < due]
        got = [_shifted(one, gone) for one in seen if since <= one.start + gone < due]
        if held != due or _sorted(got) != _sorted(wanted):
            return [
                f"{text[:end]!r}, read in pieces of {size}, settles {held} with {got}, and at once {due} with {wanted}"
            ]
        since = due
        dropped = max(0, since - detector.look_behind - gone) if end % 3 == 0 else 0
        gone += dropped
    return []


def _sorted(findings: Sequence[Finding]) -> list[tuple[int, int, str, str, float]]:
    return sorted((one.start, one.end, one.category, one.label, one.score) for one in findings)


def _shifted(finding: Finding, by: int) -> Finding:
    return Finding(
        finding.detector, finding.category, finding.score, finding.start + by, finding.end + by, finding.label
    )
