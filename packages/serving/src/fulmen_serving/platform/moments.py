"""Times as people write them: 2027-01-31, 2027-01-31T12:00+08:00, or a span such as 90d, 12h, 30m."""

from __future__ import annotations

import datetime
import re
import time

from fulmen_core.errors import UserError

_SPAN = re.compile(r"([0-9]{1,6})([dhm])")
_SECONDS = {"d": 86_400, "h": 3600, "m": 60}


def moment(text: str) -> int:
    """Return the Unix second of a time, a span counting from now on. A time without a zone is in UTC.

    Raises:
        UserError: it is neither.
    """
    return _moment(text, 1)


def moment_ago(text: str) -> int:
    """As `moment`, but a span ends now.

    Raises:
        UserError: it is neither a time nor a span.
    """
    return _moment(text, -1)


def written(second: int | None) -> str | None:
    """Return a Unix second as ISO 8601 in UTC."""
    if second is None:
        return None
    return datetime.datetime.fromtimestamp(second, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str, direction: int) -> int:
    if span := _SPAN.fullmatch(text):
        return int(time.time()) + direction * int(span[1]) * _SECONDS[span[2]]
    try:
        read = datetime.datetime.fromisoformat(text)
        return int((read if read.tzinfo else read.replace(tzinfo=datetime.UTC)).timestamp())
    except (ValueError, OverflowError):
        raise UserError(
            f"{text[:40]!r} is neither a time nor a span", remedy="write e.g. 2027-01-31, 2027-01-31T12:00Z, 90d or 12h"
        ) from None
