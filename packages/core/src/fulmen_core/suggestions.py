"""The did-you-mean of every error sentence."""

from __future__ import annotations

from collections.abc import Iterable


def closest(name: str, known: Iterable[str]) -> str:
    """Return the known name most like `name`, or ``""`` if none is near."""
    from difflib import get_close_matches  # errors are rare, start-up is not

    return next(iter(get_close_matches(name, sorted(known), n=1, cutoff=0.6)), "")


def remedy_for_unknown(name: str, known: Iterable[str], *, kind: str) -> str:
    """Say what an unknown name might mean and what there is, e.g. ``"did you mean 'cpu'? backends: cpu, onnx"``."""
    names = sorted(known)
    near = closest(name, names)
    there = f"{kind}: {', '.join(names) if names else 'none'}"
    return f"did you mean '{near}'? {there}" if near else there
