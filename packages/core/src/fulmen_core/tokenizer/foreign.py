"""Tokenizers of open checkpoints: BPE in a `tokenizer.json`, byte-level or SentencePiece's, with a Jinja template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer

from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.files import atomic_write_text
from fulmen_core.tokenizer.byte_level import check_encodable, encode_texts
from fulmen_core.tokenizer.chat import check_messages
from fulmen_core.tokenizer.defence import SpecialTokenCutter, texts_of
from fulmen_core.tokenizer.pieces import bytes_of_tokens, strips_first_space
from fulmen_core.tokenizer.template import ChatTemplate
from fulmen_core.tokenizer.tokenizer import Messages, Tokenizer, no_answer_to_learn
from fulmen_core.tokenizer.tool_text import plain_conversation, thought_text

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
GENERATION_FILE, TEMPLATE_FILE = "generation_config.json", "chat_template.jinja"
#: What a tokenizer directory may hold, beside the model.
FILES = (TOKENIZER_FILE, CONFIG_FILE, GENERATION_FILE, TEMPLATE_FILE)

_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
_REMEDY = "copy the checkpoint's files again"


class ForeignTokenizer(Tokenizer):
    """The tokenizer of an open checkpoint. What it encodes is what Hugging Face's library encodes, safely.

    Decoding gives back what the tokenizer's own normalisation left of a text.

    Args:
        files: contents by name, of `FILES`; the first is required.
        where: the directory, for sentences.

    Raises:
        UserError: it is no BPE tokenizer, or spells its tokens in a way that is not known.
        CorruptArtefact: a file is not what its name says.
    """

    models_have_spare_rows = True

    def __init__(self, files: Mapping[str, str], where: str = "the tokenizer") -> None:
        self._files, self._where = {name: files[name] for name in FILES if name in files}, where
        document = self._object(TOKENIZER_FILE)
        if not isinstance(document.get("model"), dict) or document["model"].get("type") != "BPE":
            raise UserError(
                f"a tokenizer that is no BPE is not supported ({_type_of(document.get('model'))})",
                where=f"{where}/{TOKENIZER_FILE}",
            )
        self._plain = self._backend()
        #: With this set the library encodes the text of a special token like any other text.
        self._plain.encode_special_tokens = True
        self._bytes = bytes_of_tokens(document, f"{where}/{TOKENIZER_FILE}")
        self.vocab_size = max(self._bytes, default=-1) + 1
        self.strips_first_space = strips_first_space(document)
        added = self._plain.get_added_tokens_decoder()
        self._special = {token.content: token_id for token_id, token in added.items() if token.special}
        self.special_ids = frozenset(self._special.values())
        if short := next((text for text in self._special if len(text) < 2), None):
            raise UserError(f"the special token {short!r} cannot be told from text", where=f"{where}/{TOKENIZER_FILE}")
        self._cutter = SpecialTokenCutter(self._special)
        self._config = self._object(CONFIG_FILE) if CONFIG_FILE in self._files else {}
        self._named = dict(self._special_names())
        self._read_ends()
        self.chat_template = self._files.get(TEMPLATE_FILE) or _default_template(self._config.get("chat_template"))
        self._template = ChatTemplate(self.chat_template, self._named, f"{where}/{CONFIG_FILE}")

    @classmethod
    def load(cls, directory: Path) -> ForeignTokenizer:
        """Read one: see `fulmen_core.tokenizer.load_tokenizer`."""
        files = {}
        for name in FILES:
            path = Path(directory) / name
            if path.is_file():
                try:
                    files[name] = path.read_text("utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise CorruptArtefact(f"{path} cannot be read ({error})", remedy=_REMEDY) from None
        if TOKENIZER_FILE not in files:
            raise UserError(f"there is no tokenizer at {Path(directory) / TOKENIZER_FILE}", remedy="check the path")
        return cls(files, str(directory))

    def save(self, directory: Path) -> None:
        """See `Tokenizer.save`; the files are those that came with the checkpoint."""
        for name, content in self._files.items():
            atomic_write_text(Path(directory) / name, content)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex of the tokenizer's contents and its template."""
        canonical = json.dumps([self._object(TOKENIZER_FILE), self.chat_template], sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_batch`."""
        return [self._without_special(ids) for ids in encode_texts(self._plain, texts)]

    def encode_prompt(self, text: str) -> list[int]:
        """The text, after the bos token if this tokenizer begins with one."""
        bos = self._id_of("bos_token")
        ids = self.encode(text)
        return [bos, *ids] if bos is not None and self._adds_bos(bos) else ids

    def token_bytes(self, token_id: int, *, skip_special: bool = True) -> bytes:
        """See `Tokenizer.token_bytes`; a model's spare rows stand for nothing."""
        if token_id < 0:
            raise UserError(f"token id {token_id} is negative")
        return b"" if skip_special and token_id in self.special_ids else self._bytes.get(token_id, b"")

    def encode_chat(
        self, messages: Messages, add_generation_prompt: bool = False, tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Encode a conversation as the checkpoint's template renders it; see `fulmen_core.tokenizer.defence`.

        A template that knows no tools gets them as text, see `fulmen_core.tokenizer.tool_text`.
        """
        check_messages(messages)
        if not self.chat_template:
            raise UserError(
                "the model has no chat template", where=self._where, remedy="take a chat model, or let it complete text"
            )
        given = [self._for_template(message) for message in messages]
        listed = list(tools)
        if not self._template.names("tools"):
            given, listed = list(plain_conversation(messages, tools)), []
        for index, message in enumerate(given):
            for text in texts_of(message):
                check_encodable(text, f"message {index}")
        mark = self._cutter.mark_for((*texts_of([given, listed]), self.chat_template))
        rendered = self._template.render(
            self._cutter.cut_all(given, mark),
            add_generation_prompt=add_generation_prompt,
            tools=self._cutter.cut_all(listed, mark) or None,
        )
        first, *rest = rendered.split(mark)
        ids = list(self._markup.encode(first, add_special_tokens=False).ids)
        for piece in rest:
            ids += self._continued(piece)
        self._check_special(ids, [first, *rest])
        return ids

    def _for_template(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What templates expect: arguments of calls as objects, and reasoning in the text if they do not read it."""
        given = {key: value for key, value in message.items() if value is not None}
        if given.get("reasoning_content") and not self._template.names("reasoning_content"):
            given["content"] = thought_text(given.pop("reasoning_content")) + given["content"]
        if calls := given.get("tool_calls"):
            given["tool_calls"] = [
                {**call, "function": {**call["function"], "arguments": _object_of(call["function"]["arguments"])}}
                for call in calls
            ]
        return given

    def encode_chat_masked(self, messages: Messages) -> tuple[list[int], list[bool]]:
        """See `Tokenizer.encode_chat_masked`: what follows a generation prompt, to the stop token, is learned."""
        ids = self.encode_chat(messages)
        trained = [False] * len(ids)
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.encode_chat(messages[:index], add_generation_prompt=True)
            after = self.encode_chat(messages[: index + 1])
            if ids[: len(after)] != after or after[: len(before)] != before:
                raise UserError(
                    "the model's chat template rewrites earlier turns, so its answers cannot be told apart",
                    where=f"message {index}",
                    remedy="train on conversations of one turn",
                )
            ends = (place + 1 for place in range(len(before), len(after)) if after[place] in self.stop_ids)
            end = next(ends, len(after))
            trained[len(before) : end] = [True] * (end - len(before))
        if not any(trained):
            raise no_answer_to_learn()
        return ids, trained

    # -- reading the files ---------------------------------------------------------------------------------------------

    def _object(self, name: str) -> dict[str, Any]:
        try:
            document = json.loads(self._files[name])
        except ValueError as error:
            raise CorruptArtefact(f"{name} is not valid JSON ({error})", where=self._where, remedy=_REMEDY) from None
        if not isinstance(document, dict):
            raise CorruptArtefact(f"{name} is not a JSON object", where=self._where, remedy=_REMEDY)
        return document

    def _backend(self) -> BackendTokenizer:
        try:
            return BackendTokenizer.from_str(self._files[TOKENIZER_FILE])
        except Exception as error:  # the library raises plain Exception
            raise CorruptArtefact(
                f"unusable tokenizer ({error})", where=f"{self._where}/{TOKENIZER_FILE}", remedy=_REMEDY
            ) from None

    @cached_property
    def _markup(self) -> BackendTokenizer:
        """The same tokenizer, which does see special tokens: for what a template has written."""
        return self._backend()

    def _special_names(self) -> Iterator[tuple[str, str]]:
        for name in _NAMES:
            token = self._config.get(name)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                yield name, text

    def _read_ends(self) -> None:
        generation = self._object(GENERATION_FILE) if GENERATION_FILE in self._files else {}
        given = generation.get("eos_token_id")
        stops = given if isinstance(given, list) else [] if given is None else [given]
        if not all(type(token_id) is int for token_id in stops):
            raise CorruptArtefact(f"eos_token_id is {given!r}", where=f"{self._where}/{GENERATION_FILE}")
        eos = self._id_of("eos_token")
        self.stop_ids = tuple(dict.fromkeys([*stops, *([] if eos is None else [eos])]))
        self.eos_id = eos if eos is not None else next(iter(self.stop_ids), 0)
        pad = self._id_of("pad_token")
        self.pad_id = self.eos_id if pad is None else pad

    def _id_of(self, name: str) -> int | None:
        token_id: int | None = self._plain.token_to_id(self._named[name]) if name in self._named else None
        return token_id

    # -- encoding ------------------------------------------------------------------------------------------------------

    def _adds_bos(self, bos: int) -> bool:
        stated = self._config.get("add_bos_token")
        return stated if isinstance(stated, bool) else self._plain.encode("", add_special_tokens=True).ids[:1] == [bos]

    @cached_property
    def _line_break(self) -> list[int]:
        return self.encode("\n")

    def _continued(self, piece: str) -> list[int]:
        """Encode a later piece of a text. A line break goes first, and out again, where texts get a space in front."""
        ids: list[int] = self._markup.encode(piece, add_special_tokens=False).ids
        if not self.strips_first_space:
            return ids
        after_break: list[int] = self._markup.encode(f"\n{piece}", add_special_tokens=False).ids
        begun = after_break[: len(self._line_break)] == self._line_break
        return after_break[len(self._line_break) :] if begun else ids

    def _check_special(self, ids: Sequence[int], pieces: Sequence[str]) -> None:
        """Refuse a conversation with more special tokens than were written: normalisation has made one of a message."""
        unknown = self._special.get(self._named.get("unk_token", ""))
        produced = sum(1 for token_id in ids if token_id in self.special_ids and token_id != unknown)
        written = sum(map(self._cutter.count, pieces))
        if produced > written:
            raise UserError("a message turns into a special token of the model", remedy="take it out of the message")

    def _without_special(self, ids: list[int]) -> list[int]:
        """Spell out special tokens that merges have made of plain text."""
        if self.special_ids.isdisjoint(ids):
            return ids
        unknown = self._special.get(self._named.get("unk_token", ""))
        spelled: list[int] = []
        for token_id in ids:
            if token_id in self.special_ids and token_id != unknown:
                text = self._bytes[token_id].decode()
                spelled += [part for half in (text[:1], text[1:]) for part in self.encode(half)]
            else:
                spelled.append(token_id)
        return spelled


def _object_of(arguments: str) -> object:
    """The arguments of a call; what a model wrote that is no JSON stays the text it is."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _type_of(value: object) -> str:
    return str(value.get("type")) if isinstance(value, dict) else type(value).__name__


def _default_template(given: object) -> str:
    """The template of tokenizer_config.json: a text, or a list of named ones, of which "default" is for chats."""
    if isinstance(given, list):
        named = {entry.get("name"): entry.get("template") for entry in given if isinstance(entry, dict)}
        given = named.get("default")
    return given if isinstance(given, str) else ""
