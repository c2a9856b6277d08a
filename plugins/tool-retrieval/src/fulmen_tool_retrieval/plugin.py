"""What retrieval registers: the tool and the verb `retrieval`. Light: everything is a dotted path until it is used."""

from __future__ import annotations

from fulmen_core.descriptors import CommandInfo, ToolInfo
from fulmen_core.hooks import hookimpl


@hookimpl
def fulmen_tools() -> list[ToolInfo]:
    """The search in an index, for served models."""
    return [
        ToolInfo(
            name="retrieval",
            description=(
                "Search the documents of this server and return the passages that fit best, each with its source. "
                "Use it before answering a question about facts that the documents may hold."
            ),
            parameters={
                "type": "object",
                "properties": {
                    "query": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": 1000,
                        "description": "what to look for, in the language of the documents",
                    },
                    "top_k": {"type": "integer", "minimum": 1, "maximum": 20, "description": "how many passages"},
                },
                "required": ["query"],
                "additionalProperties": False,
            },
            load="fulmen_tool_retrieval.tool:make",
            max_result_characters=16_000,
        )
    ]


@hookimpl
def fulmen_commands() -> list[CommandInfo]:
    """The verb `fulmen retrieval`."""
    return [
        CommandInfo("retrieval", "index documents, search an index, show it", "fulmen_tool_retrieval.cli.entry:run")
    ]
