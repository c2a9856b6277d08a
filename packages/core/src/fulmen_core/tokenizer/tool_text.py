"""Tools in a conversation as plain text: the format of Hermes and Qwen, for templates that know no tools of their own.

A system message tells which functions there are; a call is JSON between <tool_call> and </tool_call>; what a tool
returned is a message of the role "tool".
Source: https://github.com/NousResearch/Hermes-Function-Calling and the chat template of Qwen2.5 and Qwen3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

Tools = Sequence[Mapping[str, Any]]

_INTRODUCTION = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{signatures}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def tools_text(tools: Tools) -> str:
    """What a system message says of the functions, each as in OpenAI's `tools`: ``{"type", "function"}``."""
    return _INTRODUCTION.format(signatures=signatures_text(tools))


def signatures_text(tools: Tools) -> str:
    """What of `tools_text` is the caller's: each function as JSON, on a line of its own."""
    return "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)


def call_text(name: str, arguments: str) -> str:
    """A call as the model writes it; `arguments` is JSON."""
    return f'{CALL_OPEN}\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}\n{CALL_CLOSE}'


def plain_text(message: Mapping[str, Any]) -> str:
    """A message with its reasoning and its calls as one text."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    calls = [call_text(function["name"], function["arguments"]) for function in functions]
    said = "\n".join(part for part in (message.get("content") or "", *calls) if part)
    return thought_text(message.get("reasoning_content") or "") + said


def thought_text(reasoning: str) -> str:
    """Reasoning as the model writes it before an answer; nothing for none."""
    return f"{THINK_OPEN}\n{reasoning}\n{THINK_CLOSE}\n\n" if reasoning else ""


def plain_conversation(messages: Sequence[Mapping[str, Any]], tools: Tools = ()) -> list[dict[str, str]]:
    """The conversation with nothing but roles and contents: tools go into the system message, calls into the text."""
    plain = [{"role": str(message["role"]), "content": plain_text(message)} for message in messages]
    if tools:
        told = tools_text(tools)
        if plain and plain[0]["role"] == "system":
            plain[0]["content"] = f"{plain[0]['content']}\n\n{told}"
        else:
            plain.insert(0, {"role": "system", "content": told})
    return plain
