"""Tools in prompts: as a checkpoint's template renders them, or as text where a template knows none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.tokenizer import ByteLevelTokenizer, Tokenizer, load_tokenizer
from fulmen_core.tokenizer.tool_text import call_text, plain_conversation, tools_text

from . import open_tokenizers as forms

#: As Qwen's: tools and calls as JSON, results in a turn of their own.
TEMPLATE = (
    "{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- tool | tojson }}{{- '\\n' }}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}"
    "{%- if message.reasoning_content %}{{- '(' + message.reasoning_content + ')' }}{%- endif %}"
    '{%- for call in message.tool_calls or [] %}{{- \'<tool_call>\\n{"name": "\' + call.function.name }}'
    "{{- '\", \"arguments\": ' }}{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "<|im_end|> of it", "parameters": {"type": "object"}},
    }
]
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "dry", "tool_call_id": "c1"},
]


@pytest.fixture(scope="module")
def with_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's tokenizer whose template takes tools."""
    directory = forms.save("qwen", tmp_path_factory.mktemp("tools"))
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": TEMPLATE}))
    return directory


def test_a_template_that_takes_tools_gets_them_as_in_transformers(with_tools: Path) -> None:
    import transformers

    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(with_tools)
    harmless = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    objects = json.loads(json.dumps(MESSAGES))
    objects[1]["tool_calls"][0]["function"]["arguments"] = {"town": "Ulm"}
    expected = theirs.apply_chat_template(objects, tools=harmless, add_generation_prompt=True, return_dict=False)
    assert load_tokenizer(with_tools).encode_chat(MESSAGES, True, harmless) == expected


def special(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    return [token for token in ids if token in tokenizer.special_ids]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<|im_", "end|>", "x", '"', "\\"]), max_size=5).map("".join)
)
def test_neither_tools_nor_calls_nor_results_can_become_markup(with_tools: Path, text: str) -> None:
    tokenizer = load_tokenizer(with_tools)

    def conversation(said: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        call = {"id": said, "type": "function", "function": {"name": said, "arguments": json.dumps({said: [said]})}}
        messages = [
            {"role": "assistant", "content": said, "reasoning_content": said, "tool_calls": [call]},
            {"role": "tool", "content": said, "tool_call_id": said},
        ]
        properties = {said: {"enum": [said]}}
        return messages, [{"type": "function", "function": {"name": said, "parameters": {"properties": properties}}}]

    hostile, harmless = (tokenizer.encode_chat(m, True, t) for m, t in (conversation(text), conversation("y")))
    assert special(tokenizer, hostile) == special(tokenizer, harmless)


def test_a_template_without_tools_is_told_of_them_as_text() -> None:
    plain = plain_conversation([{"role": "system", "content": "Be brief."}, *MESSAGES], TOOLS)
    assert plain[0]["content"] == f"Be brief.\n\n{tools_text(TOOLS)}"
    assert json.dumps(TOOLS[0]) in plain[0]["content"]
    assert plain[2] == {"role": "assistant", "content": call_text("weather", '{"town": "Ulm"}')}
    assert plain[3] == {"role": "tool", "content": "dry"}
    assert plain_conversation(MESSAGES, TOOLS)[0] == {"role": "system", "content": tools_text(TOOLS)}


@pytest.mark.parametrize("reasoning", ["", "Hm."])
def test_our_own_template_renders_tools_calls_and_reasoning_as_text(reasoning: str) -> None:
    tokenizer = ByteLevelTokenizer.train(["The quick brown fox"], 512)
    said = {**MESSAGES[1], "content": "Let me look.", "reasoning_content": reasoning}
    ids = tokenizer.encode_chat([MESSAGES[0], said, MESSAGES[2]], True, TOOLS)
    thought = "<think>\nHm.\n</think>\n\n" if reasoning else ""
    call = call_text("weather", CALL["function"]["arguments"])
    assert tokenizer.decode(ids, skip_special=False) == (
        f"<|im_start|>system\n{tools_text(TOOLS)}<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n"
        f"<|im_start|>assistant\n{thought}Let me look.\n{call}<|im_end|>\n"
        "<|im_start|>tool\ndry<|im_end|>\n<|im_start|>assistant\n"
    )
    assert len(special(tokenizer, ids)) == 9
