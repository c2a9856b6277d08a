"""What a user may choose of one backend alone, such as the execution provider of a runtime: ``NAME=VALUE``.

A backend names such options in `Capabilities.options` and takes each as an argument of `load_runner`, a string.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fulmen_core.errors import CapabilityError, UserError
from fulmen_core.suggestions import closest

if TYPE_CHECKING:
    from fulmen_core.backend import Backend


@runtime_checkable
class Placing(Protocol):
    """A backend that can say what would compute a model before it is loaded to be served."""

    def placement(self, model: Path, **options: str) -> Mapping[str, str]:
        """What would compute the model, why, and how much of it: named facts, to be read by people.

        Raises:
            CapabilityError: an option's value cannot be honoured here.
            CorruptArtefact: the model is damaged.
        """
        ...


def add_backend_options(parser: ArgumentParser) -> None:
    """Add ``--backend-option``; `parse_backend_options` reads its values."""
    parser.add_argument(
        "--backend-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the backend alone, e.g. provider=cpu of onnxruntime; may be repeated",
    )


def parse_backend_options(words: Sequence[str]) -> dict[str, str]:
    """Return the values by name.

    Raises:
        UserError: a word is no ``NAME=VALUE``, or a name comes twice.
    """
    options: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UserError(f"--backend-option {word!r} is no NAME=VALUE", remedy="write for example provider=cpu")
        if name in options:
            raise UserError(f"--backend-option {name} is given twice", remedy="leave one of them out")
        options[name] = value
    return options


def refuse_unknown_options(backend: Backend, options: Mapping[str, str]) -> None:
    """Refuse an option that the backend does not have.

    Raises:
        CapabilityError: there is one.
    """
    known = backend.capabilities().options
    for name in options:
        if name not in known:
            near = closest(name, known)
            has = f"it has {', '.join(known)}" if known else "it has none: leave --backend-option out"
            raise CapabilityError(
                f"the backend {backend.name} has no option {name!r}", remedy=f"did you mean {near!r}?" if near else has
            )
