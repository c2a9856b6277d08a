"""What restricts which tokens may follow: a grammar, for example. The sampler asks it, the engine tells it.

Legend: V vocabulary of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TokenConstraint(Protocol):
    """Where one answer stands in what it must be. Asked before a token is drawn, told after it was taken."""

    def allows(self, token: int) -> bool:
        """Whether `token` may be next. Must agree with `allowed`.

        Raises:
            UserError: the constraint cannot go on.
        """
        ...

    def allowed(self, vocab_size: int) -> NDArray[np.bool_]:
        """The tokens that may be next, bool ``[V]``; at least one.

        Raises:
            UserError: the constraint cannot go on.
        """
        ...

    def accept(self, token: int) -> None:
        """`token`, which was allowed, is part of the answer now. Never raises: what fails is told when next asked."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the answer is complete: nothing may follow."""
        ...


#: Opens a fresh constraint for one answer, of the text that describes it. Must be quick, for the model waits, and must
#: not raise: a text that cannot be read makes a constraint that says so when it is asked.
OpenConstraint = Callable[[str], TokenConstraint]
