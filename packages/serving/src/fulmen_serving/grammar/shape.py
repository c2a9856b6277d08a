"""The shape that a request wants an answer to have, and a part of a grammar that says so.

Source of the grammars' form: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md (Lark with extensions).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: White space between the parts of JSON: a space, or a new line and its indentation; never endless, which weak models
#: are prone to.
_WHITE_SPACE = r"( |\n {0,24})?"

GrammarPart = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """What the text of an answer must be.

    Attributes:
        kind: "json_schema", "regex", "choice" or "grammar" (Lark).
        value: the schema, the regex, the choices, the grammar.
        field: the request's field that says so, for refusals.
        strict: whether keywords of a schema that cannot be enforced are refused; else they are left out.
    """

    kind: Literal["json_schema", "regex", "choice", "grammar"]
    value: Any
    field: str
    strict: bool = True

    def part(self) -> GrammarPart:
        """The grammar of such a text."""
        if self.kind == "json_schema":
            return json_part(self.value, strict=self.strict)
        if self.kind == "regex":
            return {"lark_grammar": f"start: {regex_literal(self.value)}"}
        if self.kind == "choice":
            return {"lark_grammar": "start: " + " | ".join(map(text_literal, self.value))}
        return {"lark_grammar": self.value}


def json_part(schema: Mapping[str, Any], *, strict: bool) -> GrammarPart:
    """The grammar of JSON that `schema` allows (draft 2020-12, as far as llguidance goes)."""
    options = {"whitespace_pattern": _WHITE_SPACE, "lenient": not strict}
    return {"json_schema": dict(schema) | {"x-guidance": options}}


def text_literal(text: str) -> str:
    """`text` as a string of a Lark grammar."""
    return json.dumps(text, ensure_ascii=False)


def regex_literal(regex: str) -> str:
    r"""`regex` between slashes, as in a Lark grammar; ``\d``, ``\w`` and ``\s`` are ASCII, as in JSON schemas."""
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(regex, 'dws')}/"
