"""What tokens cost: a TOML file with a table for each model, prices in one currency per million tokens.

```toml
[chat]
input_per_million = 0.25
output_per_million = 1.00
```
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from fulmen_core.errors import UserError
from fulmen_core.suggestions import closest

#: Costs are integers of 10^-12 of the currency: a price with six decimals is one integer per token, and sums are exact.
UNIT = 10**12
_KEYS = ("input_per_million", "output_per_million")
_HIGHEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Of one token, in 1 / `UNIT` of the currency."""

    prompt: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by model; one without a price costs what `base` does, which adapters change, or nothing."""

    prices: Mapping[str, Price] = field(default_factory=dict)
    base: str = ""

    def cost(self, model: str, prompt_tokens: int, completion_tokens: int) -> int:
        """Return the cost in 1 / `UNIT` of the currency."""
        price = self.prices.get(model) or self.prices.get(self.base, Price())
        return prompt_tokens * price.prompt + completion_tokens * price.completion


def load_prices(path: Path, base: str = "") -> PriceTable:
    """Read a price table; `base` is the model whose price holds for what has none of its own.

    Raises:
        UserError: it cannot be read, is no TOML, or a key or price does not fit.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        raise UserError(f"the price table {path} cannot be read", remedy=error.strerror or str(error)) from None
    except ValueError as error:
        raise UserError(f"the price table {path} is no TOML", remedy=str(error)) from None
    prices = {}
    for model, table in tables.items():
        where = f"{path} [{model}]"
        if not isinstance(table, dict):
            raise UserError(f"{model!r} is no table", where=str(path), remedy=f"write [{model}] and its prices below")
        for key in table:
            if key not in _KEYS:
                near = closest(key, _KEYS)
                raise UserError(
                    f"unknown key {key!r}", where=where, remedy=f"did you mean {near}?" if near else " or ".join(_KEYS)
                )
        prices[model] = Price(*(_per_token(table.get(key, 0), key, where) for key in _KEYS))
    return PriceTable(prices, base)


def _per_token(value: object, key: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not Decimal(value).is_finite():
        raise UserError(f"{key} is no number", where=where)
    price = Decimal(value) * (UNIT // 10**6)
    if not 0 <= value <= _HIGHEST or price != int(price):
        raise UserError(
            f"{key} is {value}", where=where, remedy=f"give a price from 0 to {_HIGHEST} with at most six decimals"
        )
    return int(price)
