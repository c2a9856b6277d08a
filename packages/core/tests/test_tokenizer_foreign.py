"""Tokenizers of open checkpoints encode as transformers does, but for one thing: text never becomes markup."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.tokenizer import StreamDecoder, Tokenizer, load_tokenizer
from fulmen_core.tokenizer.foreign import ForeignTokenizer

from . import open_tokenizers as forms

FORM = st.sampled_from(sorted(forms.FORMS))
#: A text that spells no special token, nor the beginning of one at its end.
PLAIN = st.text(max_size=60).filter(lambda text: "<" not in text and not set(text) & set("\ue000\ue001"))
MARKUP = st.sampled_from(
    [
        "<|im_end|>",
        "<|im_start|>",
        "<s>",
        "</s>",
        "<unk>",
        "<|eot_id|>",
        "<|im_",
        "end|>",
        "<",
        "<<|im_end|>",
        "s>",
        " ",
    ]
)
HOSTILE = st.lists(st.one_of(MARKUP, st.text(max_size=4)), max_size=8).map("".join)


@cache
def folder(form: str) -> Path:
    return forms.save(form, Path(tempfile.mkdtemp(prefix="fulmen-tokenizer-")))


@cache
def ours(form: str) -> Tokenizer:
    return load_tokenizer(folder(form))


@cache
def theirs(form: str) -> Any:
    import transformers

    return transformers.PreTrainedTokenizerFast.from_pretrained(folder(form))


def chat(contents: list[str]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]


@pytest.mark.parametrize("form", forms.FORMS)
def test_texts_in_many_scripts_encode_as_in_transformers(form: str) -> None:
    for text in forms.TEXTS:
        assert ours(form).encode(text) == theirs(form).encode(text, add_special_tokens=False), text
        assert ours(form).encode_prompt(text) == theirs(form).encode(text), text


@given(FORM, PLAIN)
@settings(max_examples=150, deadline=None)
def test_any_plain_text_encodes_and_decodes_as_in_transformers(form: str, text: str) -> None:
    ids = ours(form).encode(text)
    assert ids == theirs(form).encode(text, add_special_tokens=False)
    assert ours(form).decode(ids) == theirs(form).decode(ids, clean_up_tokenization_spaces=False)


@given(FORM, HOSTILE)
@settings(max_examples=150, deadline=None)
def test_text_never_encodes_to_a_special_token(form: str, text: str) -> None:
    tokenizer = ours(form)
    assert tokenizer.special_ids.isdisjoint(tokenizer.encode(text))


@given(FORM, st.lists(PLAIN, min_size=1, max_size=4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_chats_encode_as_transformers_applies_the_template(form: str, contents: list[str], prompt: bool) -> None:
    messages = chat(contents)
    expected = theirs(form).apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
    assert ours(form).encode_chat(messages, add_generation_prompt=prompt) == expected


@pytest.mark.parametrize("form", ["llama 2", "llama, metaspace", "llama 3", "smollm2"])
def test_a_system_message_goes_where_the_template_puts_it(form: str) -> None:
    messages = [{"role": "system", "content": " Be brief. "}, *chat(["Hi", " Hello ", "Bye"])]
    assert ours(form).encode_chat(messages) == theirs(form).apply_chat_template(messages, return_dict=False)


@given(FORM, st.lists(HOSTILE, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_a_message_cannot_add_or_take_a_special_token(form: str, contents: list[str]) -> None:
    """As many of each as the same conversation has when its messages say nothing."""
    tokenizer = ours(form)
    blank = tokenizer.encode_chat(chat(["x" if content.strip() else "" for content in contents]), True)
    hostile = tokenizer.encode_chat(chat(contents), True)
    assert [i for i in hostile if i in tokenizer.special_ids] == [i for i in blank if i in tokenizer.special_ids]


@given(st.lists(HOSTILE, min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_what_a_message_spells_is_still_what_the_model_reads(contents: list[str]) -> None:
    import jinja2

    messages = chat(contents)
    rendered = jinja2.Template(forms.SMOLLM2_TEMPLATE, keep_trailing_newline=True).render(messages=messages)
    tokenizer = ours("smollm2")
    assert tokenizer.decode(tokenizer.encode_chat(messages), skip_special=False) == rendered


@given(FORM, st.lists(st.integers(0, 700), max_size=30), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_ids_stream_to_what_they_decode_to(form: str, ids: list[int], skip: bool) -> None:
    stream = StreamDecoder(ours(form), skip_special=skip)
    pieces = [*(stream.push(token_id) for token_id in ids), stream.finish()]
    assert "".join(pieces) == ours(form).decode(ids, skip_special=skip)


@pytest.mark.parametrize("form", forms.FORMS)
def test_answers_and_what_ends_them_are_learned(form: str) -> None:
    tokenizer = ours(form)
    messages = chat(["One?", "1", "Two?", "22"])
    ids, trained = tokenizer.encode_chat_masked(messages)
    assert ids == tokenizer.encode_chat(messages)
    learned = [token_id for token_id, flag in zip(ids, trained, strict=True) if flag]
    assert [i for i in learned if i in tokenizer.stop_ids] == [tokenizer.eos_id] * 2
    assert tokenizer.decode(learned).split() in (["1", "22"], ["122"])
    with pytest.raises(UserError, match="no assistant message"):
        tokenizer.encode_chat_masked(messages[:1])


def test_stop_ids_are_those_of_the_generation_config_and_the_tokenizer(tmp_path: Path) -> None:
    directory = forms.save("llama 3", tmp_path)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 4]}))
    assert load_tokenizer(directory).stop_ids == (1, 4)
    assert load_tokenizer(directory).eos_id == 4


def test_a_saved_tokenizer_is_the_same_file_for_file(tmp_path: Path) -> None:
    ours("llama 2").save(tmp_path / "copy")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "copy" / name).read_text() == (folder("llama 2") / name).read_text()
    assert load_tokenizer(tmp_path / "copy").fingerprint == ours("llama 2").fingerprint


def test_a_template_in_a_file_of_its_own_goes_first(tmp_path: Path) -> None:
    directory = forms.save("smollm2", tmp_path)
    (directory / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    tokenizer = load_tokenizer(directory)
    assert tokenizer.decode(tokenizer.encode_chat(chat(["Hi"])), skip_special=False) == "Hi<|im_end|>"


def test_a_model_may_have_spare_rows_but_none_too_few() -> None:
    tokenizer = ours("qwen")
    tokenizer.check_model_vocab(tokenizer.vocab_size + 100, "m")
    assert tokenizer.decode([tokenizer.vocab_size + 5]) == ""
    with pytest.raises(UserError, match=f"{tokenizer.vocab_size} tokens but the model has a vocabulary of 10 in m"):
        tokenizer.check_model_vocab(10, "m")


def test_roles_that_a_template_refuses_are_a_fault_of_the_user() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(UserError, match=r"refuses the conversation .*must alternate"):
        ours("llama 2").encode_chat(messages)


def test_a_model_without_a_template_says_so(tmp_path: Path) -> None:
    directory = forms.save("neox", tmp_path)
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(directory).encode_chat(chat(["Hi"]))


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{% for i in range(1000000) %}x{% endfor %}",
        "{{ messages.append(1) }}",
        "{{ 1/0 }}",
    ],
)
def test_a_template_that_leaves_its_sandbox_or_fails_is_refused(template: str, tmp_path: Path) -> None:
    directory = forms.save("smollm2", tmp_path)
    (directory / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match="chat template"):
        load_tokenizer(directory).encode_chat(chat(["Hi"]))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{", "not valid JSON"),
        ("tokenizer.json", "[]", "not a JSON object"),
        ("tokenizer.json", '{"model": {"type": "WordPiece"}}', "no BPE is not supported \\(WordPiece\\)"),
        ("tokenizer.json", '{"model": {"type": "BPE"}}', "unusable tokenizer"),
        ("tokenizer_config.json", "[1]", "not a JSON object"),
        ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id is 'x'"),
        ("chat_template.jinja", "{% for %}", "no valid Jinja"),
    ],
)
def test_a_damaged_file_is_refused_by_name(name: str, content: str, said: str, tmp_path: Path) -> None:
    directory = forms.save("smollm2", tmp_path)
    (directory / name).write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        load_tokenizer(directory).encode_chat(chat(["Hi"]))
    assert isinstance(caught.value, CorruptArtefact) or "WordPiece" in str(caught.value)


def test_merges_that_spell_a_special_token_are_spelled_out(tmp_path: Path) -> None:
    directory = forms.save("smollm2", tmp_path)
    document = json.loads((directory / "tokenizer.json").read_text())
    vocab = document["model"]["vocab"]
    size = len(vocab)
    vocab.update({"<repo": size, "_name>": size + 1})
    document["model"]["ignore_merges"] = True  # a stretch that is a token is taken whole
    document["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    (directory / "tokenizer.json").write_text(json.dumps(document))
    tokenizer = load_tokenizer(directory)
    assert isinstance(tokenizer, ForeignTokenizer)
    ids = tokenizer.encode("<repo_name>")
    assert tokenizer.special_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == "<repo_name>"
