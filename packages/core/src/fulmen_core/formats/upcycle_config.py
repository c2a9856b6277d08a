"""What `fulmen import --upcycle` makes of a dense checkpoint, as its ``key=value`` words say it."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class UpcycleConfig(BaseModel):
    """What to make of a dense checkpoint.

    Attributes:
        experts: routed experts, E; a multiple of `split`.
        split: shards that each FFN is cut into, G; None is `active`, or `experts` where that is not given either.
        active: experts that a token uses, K; None is `split`. A multiple of `split` keeps the function.
        dense_layers: leading layers that stay dense.
        pattern: attention of the layers, repeated over the depth: S sliding window, F full.
        window: tokens that a sliding-window layer sees; None is 4096, or the model's context if that is shorter.
        seed: of the router's random rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experts: int = Field(ge=1)
    split: int | None = Field(None, ge=1)
    active: int | None = Field(None, ge=1)
    dense_layers: int = Field(0, ge=0)
    pattern: str = Field("SSSF", pattern="^[SF]+$")
    window: int | None = Field(None, gt=0)
    seed: int = 0

    @property
    def shards(self) -> int:
        """G, the shards of one FFN."""
        return self.split or self.active or self.experts

    @property
    def top_k(self) -> int:
        """K, the experts that a token uses."""
        return self.active or self.shards

    @property
    def keeps_function(self) -> bool:
        """Whether the upcycled model computes what the dense one does, for contexts within the window."""
        return self.top_k % self.shards == 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.experts % self.shards:
            raise ValueError(f"experts {self.experts} is not a multiple of the {self.shards} shards of an FFN")
        if self.top_k > self.experts:
            raise ValueError(f"active {self.top_k} is more than experts {self.experts}")
        if self.top_k > self.shards and self.top_k % self.shards:
            raise ValueError(f"active {self.top_k} is neither below nor a multiple of the {self.shards} shards")
        return self
