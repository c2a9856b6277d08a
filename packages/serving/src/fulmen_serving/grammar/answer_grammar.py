"""The grammar of a whole answer: its reasoning, its shape, the calls of tools that it may or must hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fulmen_core.tokenizer.tool_text import CALL_CLOSE, CALL_OPEN, THINK_CLOSE, THINK_OPEN
from fulmen_serving.grammar.compiler import GrammarCompiler, GrammarError, grammar_text
from fulmen_serving.grammar.shape import AnswerShape, GrammarPart, json_part, text_literal
from fulmen_serving.parsing.answer_parser import AnswerFormat
from fulmen_serving.refusal import Refusal


@dataclass(frozen=True, slots=True)
class CallableFunction:
    """A function that the model may call.

    Attributes:
        name: what calls name it.
        parameters: JSON schema of its arguments.
        strict: whether arguments must fit the schema even where the model is free to call or not.
        field: the request's field of the schema, for refusals.
    """

    name: str
    parameters: Mapping[str, Any]
    strict: bool
    field: str

    @property
    def part(self) -> GrammarPart:
        """The grammar of its arguments, an object in any case."""
        return json_part({"type": "object"} | dict(self.parameters), strict=self.strict)


@dataclass(frozen=True, slots=True)
class CallRule:
    """Which functions may be called, and whether one must be.

    Attributes:
        functions: those that may be called, at least one.
        required: the answer is a call.
        parallel: it may hold several.
        field: the request's field that asks for what needs a grammar, for refusals.
    """

    functions: tuple[CallableFunction, ...]
    required: bool = False
    parallel: bool = True
    field: str = "tool_choice"

    @property
    def needs_grammar(self) -> bool:
        """Whether the model alone cannot be trusted with it."""
        return self.required or not self.parallel or any(function.strict for function in self.functions)


def answer_grammar(
    compiler: GrammarCompiler, shape: AnswerShape | None, calls: CallRule | None, form: AnswerFormat
) -> str:
    """Return the text of the grammar, empty if everything is allowed. It is compiled, and kept by `compiler`.

    Raises:
        Refusal: 400, llguidance is not installed, or a part is at fault: its field, and the place inside.
    """
    rule = calls if calls is not None and (calls.needs_grammar or shape is not None) else None
    if shape is None and rule is None:
        return ""
    field = shape.field if shape is not None else rule.field if rule is not None else ""
    if not compiler.available():
        raise Refusal(
            400,
            f"'{field}' needs constrained answers, and this server has no grammar engine: "
            "pip install 'fulmen-serving[structured]'",
            code="unsupported_parameter",
            param=field,
        )
    if shape is not None:
        _check(compiler, shape.part(), shape.field)
    for function in rule.functions if rule is not None else ():
        _check(compiler, function.part, function.field)
    parts = _parts(shape, rule, form)
    text = grammar_text(parts)
    fault = compiler.fault(text)
    if fault:
        raise Refusal(400, f"Invalid '{field}': {fault}", code="invalid_value", param=field)
    compiler.open(text)
    return text


def _check(compiler: GrammarCompiler, part: GrammarPart, field: str) -> None:
    try:
        compiler.check(part)
    except GrammarError as error:
        param = field + error.place
        raise Refusal(400, f"Invalid '{param}': {error}", code="invalid_value", param=param) from None


def _parts(shape: AnswerShape | None, rule: CallRule | None, form: AnswerFormat) -> list[GrammarPart]:
    if rule is None and shape is not None and not form.reasoning:
        return [shape.part()]
    lines: list[str] = []
    sides: list[GrammarPart] = []
    answers: list[str] = []
    if shape is not None:
        sides.append({"name": "shape", **shape.part()})
        answers.append("@shape")
    if rule is not None:
        sides += [{"name": f"arguments_{index}", **one.part} for index, one in enumerate(rule.functions)]
        end = text_literal("}\n" + CALL_CLOSE)
        heads = [text_literal(_head(one.name)) for one in rule.functions]
        lines.append("body: " + " | ".join(f"{head} @arguments_{i} {end}" for i, head in enumerate(heads)))
        if rule.required or shape is not None:
            lines.append(f"call: {text_literal(CALL_OPEN)} body")
            answers.append('call ("\\n" call)*' if rule.parallel else "call")
        else:  # free text, in which a call is one of these wherever it begins
            lines += [f"begun[lazy]: TEXT {text_literal(CALL_OPEN)}", "TEXT: /(.|\\n)*/"]
            answers.append("(begun body)* TEXT" if rule.parallel else "TEXT | begun body")
    lines.insert(0, f"start: {_thought(form, lines)} answer" if form.reasoning else "start: answer")
    lines.append("answer: " + " | ".join(answers))
    return [{"lark_grammar": "\n".join(lines)}, *sides]


def _thought(form: AnswerFormat, lines: list[str]) -> str:
    """Reasoning before the answer, begun or not; the grammar binds what comes behind it."""
    lines += [
        f"thought[lazy]: THOUGHT {text_literal(THINK_CLOSE)}",
        "THOUGHT: /(.|\\n)*/",
        "GAP: /[ \\n]{0,4}/",
    ]
    return "thought GAP" if form.starts_inside else f"({text_literal(THINK_OPEN)} thought GAP)?"


def _head(name: str) -> str:
    return f'\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '
