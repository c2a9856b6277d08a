"""How a backend refuses what it does not list: the same sentence from every one.

```python
require(self.name, "serve in", dtype, self.capabilities().serve_dtypes)
class AcmeRunner(WithoutPages, WithoutAdapters): ...
```
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fulmen_core.errors import CapabilityError
from fulmen_core.runner import EngineLimits


def require(backend: str, verb: str, wanted: str, known: Sequence[str]) -> None:
    """Refuse what is not among `known`. `verb` says what the backend would do with it, e.g. "serve in".

    Raises:
        CapabilityError: it is not.
    """
    if wanted not in known:
        remedy = f"use one of {', '.join(known)}" if known else "leave the option out"
        raise CapabilityError(f"the {backend} backend does not {verb} {wanted}", remedy=remedy)


def refuse_adapters(backend: str, limits: EngineLimits) -> None:
    """Refuse limits that ask for adapters of a backend that serves none.

    Raises:
        CapabilityError: they do.
    """
    if limits.adapters:
        raise _no_adapters(f"the {backend} backend")


class WithoutPages:
    """A runner that keeps all of a sequence in its slot."""

    def copy_page(self, source: int, target: int) -> None:  # noqa: ARG002 - there are none
        """There are no pages.

        Raises:
            ValueError: always.
        """
        raise ValueError("this runner has no pages")


class WithoutAdapters:
    """A runner of a backend that does not declare `Capabilities.adapters`."""

    def load_adapter(self, directory: Path) -> int:  # noqa: ARG002 - it cannot
        """There is no place for one.

        Raises:
            CapabilityError: always.
        """
        raise _no_adapters("this backend")

    def unload_adapter(self, number: int) -> None:
        """Nothing to do: none is ever loaded."""


def _no_adapters(who: str) -> CapabilityError:
    return CapabilityError(f"{who} serves no adapters", remedy="serve the checkpoint with --backend cpu")
