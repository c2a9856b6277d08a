"""Which of the functions in a request may be called, and whether one must be: the same in every protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fulmen_serving.grammar.answer_grammar import CallableFunction, CallRule
from fulmen_serving.refusal import Refusal


@dataclass(frozen=True, slots=True)
class FunctionChoice:
    """What a request chooses.

    Attributes:
        mode: whether functions may be called.
        name: the one that must be; None: any.
        parallel: whether an answer may call several.
        name_field: of a function, after ``tools[0].``, for refusals.
        parallel_field: that says `parallel`, for refusals.
    """

    mode: Literal["none", "auto", "required"] = "auto"
    name: str | None = None
    parallel: bool = True
    name_field: str = "name"
    parallel_field: str = "parallel_tool_calls"

    def rule(self, functions: Sequence[CallableFunction]) -> CallRule | None:
        """Return the rule of the choice among `functions`; None: none may be called.

        Raises:
            Refusal: 400, two functions share a name, or the choice names none of them.
        """
        names = [function.name for function in functions]
        twice = next((index for index, name in enumerate(names) if name in names[:index]), None)
        if twice is not None:
            raise _wrong(f"tools[{twice}].{self.name_field}", f"there are two functions '{names[twice]}'")
        required = self.mode == "required"
        if not functions:
            if required:
                raise _wrong("tool_choice", "there are no 'tools' to choose from")
            return None
        if self.mode == "none":
            return None
        chosen = tuple(function for function in functions if self.name in (None, function.name))
        if not chosen:
            raise _wrong("tool_choice", f"there is no function '{self.name}' in 'tools'")
        field = "tool_choice" if required else "tools" if self.parallel else self.parallel_field
        return CallRule(chosen, required, self.parallel and self.name is None, field)


def _wrong(field: str, message: str) -> Refusal:
    return Refusal(400, f"Invalid '{field}': {message}", code="invalid_value", param=field)
