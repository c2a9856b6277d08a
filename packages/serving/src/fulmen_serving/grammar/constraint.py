"""A grammar as what the engine's sampler asks: llguidance's matcher behind `TokenConstraint`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fulmen_core.errors import UserError

if TYPE_CHECKING:
    from llguidance import LLMatcher


class GrammarConstraint:
    """Where one answer stands in its grammar. See `fulmen_core.token_constraint.TokenConstraint`.

    Args:
        matcher: fresh, of this answer alone.
    """

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allows(self, token: int) -> bool:
        """See `TokenConstraint.allows`."""
        allowed = self._matcher.validate_tokens([token]) == 1
        if not allowed:
            self._check()
        return allowed

    def allowed(self, vocab_size: int) -> NDArray[np.bool_]:
        """See `TokenConstraint.allowed`. A model's spare rows are no tokens of the tokenizer."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        self._check()
        allowed_V = np.zeros(vocab_size, np.bool_)
        allowed_V[: len(bits)] = bits[:vocab_size]
        if not allowed_V.any():
            raise UserError("no token of the model's vocabulary can continue what the grammar asks for")
        return allowed_V

    def accept(self, token: int) -> None:
        """See `TokenConstraint.accept`."""
        self._matcher.consume_token(token)

    @property
    def finished(self) -> bool:
        """See `TokenConstraint.finished`."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UserError(f"the answer's grammar cannot go on ({' '.join(self._matcher.get_error().split())})")
