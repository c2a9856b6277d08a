"""Looking for a tag in text that arrives in pieces: what may be its beginning waits until it is decided."""

from __future__ import annotations


def split_at_tag(text: str, tag: str) -> tuple[str, str | None]:
    """Return what is before the first `tag` and what is behind it; without a tag, what cannot be the beginning of one
    or white space before one, and None: the rest is to be asked again with more text.
    """
    place = text.find(tag)
    if place >= 0:
        return text[:place], text[place + len(tag) :]
    keep = next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:size])), 0)
    return text[: len(text) - keep].rstrip(), None
