"""Keys and usage as plain objects, the same from the command line and from the admin API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from fulmen_serving.platform.api_key import ApiKey
from fulmen_serving.platform.moments import written
from fulmen_serving.platform.prices import UNIT
from fulmen_serving.platform.usage_store import Usage, UsageRow


def key_object(key: ApiKey) -> dict[str, Any]:
    """Return what is known of a key; times are ISO 8601 in UTC."""
    return {
        "id": key.id,
        "name": key.name,
        "organisation": key.organisation,
        "prefix": key.prefix,
        "state": key.state(time.time()),
        "created": written(key.created),
        "expires": written(key.expires),
        "revoked": written(key.revoked),
        "last_used": written(key.last_used),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "max_concurrent": key.max_concurrent,
        "organisation_tokens_per_month": key.tokens_per_month,
    }


def usage_report(rows: Sequence[UsageRow]) -> dict[str, Any]:
    """Return rows of usage and their sum."""
    total = Usage()
    for row in rows:
        total = total.plus(row.used)
    return {
        "data": [
            {
                "organisation": row.organisation,
                "key_id": row.key_id,
                "key": row.key,
                "model": row.model,
                **({} if row.hour is None else {"hour": written(row.hour)}),
                **used_object(row.used),
            }
            for row in rows
        ],
        "total": used_object(total),
    }


def used_object(used: Usage) -> dict[str, Any]:
    """Return usage with its cost as a decimal string in the currency of the price table: exact, unlike a float."""
    return {
        "requests": used.requests,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "cost": format_cost(used.cost),
    }


def format_cost(cost: int) -> str:
    """Return a cost with as many decimals as it needs, two at least."""
    whole, _, decimals = f"{Decimal(cost) / UNIT:.12f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"
