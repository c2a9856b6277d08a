"""The loop of the terminal chat: read a line, stream the answer; Ctrl-C stops the answer, not the chat."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Iterator

from fulmen_core.errors import UserError
from fulmen_core.suggestions import closest
from fulmen_serving.engine.engine import AnswerEnd, AnswerFailure, TextDelta
from fulmen_serving.terminal.conversation import Conversation
from fulmen_serving.terminal.partner import Partner

COMMANDS = {
    "/reset": "forget what was said",
    "/system": "set the system prompt, e.g. `/system Answer in French.`; without text: remove it",
    "/help": "show this",
    "/exit": "leave (so does Ctrl-D)",
}
_END_NOTES = {
    "content_filter": "the guard ended the answer; this exchange is not remembered",
    "length": "the answer was cut: no room for more tokens",
}
#: What could move the cursor or worse: a model's text must not operate the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TerminalChat:
    """One chat. On a terminal it prompts; with piped input every line is a message and only answers go to stdout."""

    def __init__(self, partner: Partner, *, system: str = "") -> None:
        self._partner = partner
        self._conversation = Conversation(system)
        self._on_terminal = sys.stdin.isatty()
        self._failed = False

    def run(self) -> int:
        """Chat until /exit or the end of the input. Returns 2 if the input was piped and an answer failed.

        Raises:
            UserError: the partner cannot be reached, or piped input is not text.
        """
        with asyncio.Runner() as loop:
            try:
                name = loop.run(self._partner.open())
                if self._on_terminal:
                    self._note(f"Talking to {name}. /help shows the commands, Ctrl-C stops an answer.")
                for line in self._lines():
                    if line.startswith("/"):
                        if self._command(line):
                            break
                    elif line.strip():
                        self._turn(loop, line)
            finally:
                loop.run(self._partner.close())
        return 2 if self._failed and not self._on_terminal else 0

    def _lines(self) -> Iterator[str]:
        if self._on_terminal:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - its import gives `input` line editing and history
        while True:
            try:
                line = input("you> ") if self._on_terminal else sys.stdin.readline()
            except EOFError:
                self._say("\n")
                return
            except KeyboardInterrupt:
                self._note("\n/exit or Ctrl-D leaves")
                continue
            except UnicodeDecodeError as error:
                raise UserError(f"the input is not valid {error.encoding}", remedy="send UTF-8 text") from None
            if not line and not self._on_terminal:
                return
            yield line.rstrip("\r\n")

    def _command(self, line: str) -> bool:
        """Run a command; return whether the chat ends."""
        word, _, rest = line.partition(" ")
        if word in ("/exit", "/quit"):
            return True
        if word == "/reset":
            self._conversation.reset()
            self._note("forgotten")
        elif word == "/system":
            self._conversation.system = rest.strip()
            self._note(f"system prompt: {rest.strip() or 'none'}")
        elif word == "/help":
            self._note("\n".join(f"{name:<9}{text}" for name, text in COMMANDS.items()))
        else:
            near = closest(word, COMMANDS)
            self._note(f"unknown command {word}" + (f"; did you mean {near}?" if near else "; /help shows them"))
        return False

    def _turn(self, loop: asyncio.Runner, text: str) -> None:
        self._conversation.ask(text)
        said: list[str] = []
        reason = "stop"
        try:
            reason = loop.run(self._stream(said))
        except KeyboardInterrupt:
            if not self._on_terminal:
                raise
            self._note(" [stopped]")
        except UserError as error:
            self._failed = True
            self._note(f"fulmen: {error}; /reset starts afresh")
        # A message that the guard has blocked would block every later one with it.
        if said and reason != "content_filter":
            self._conversation.reply("".join(said))
        else:
            self._conversation.take_back()

    async def _stream(self, said: list[str]) -> str:
        """Show one answer, collect it in `said`, and return why it ended."""
        async with contextlib.aclosing(self._partner.answer(self._conversation.messages)) as events:
            async for event in events:
                match event:
                    case TextDelta(text):
                        said.append(text)
                        self._say(_CONTROL.sub("\ufffd", text) if sys.stdout.isatty() else text)
                    case AnswerEnd(reason):
                        self._say("\n")
                        if reason in _END_NOTES:
                            self._note(f"[{_END_NOTES[reason]}]")
                        return reason
                    case AnswerFailure(message):
                        self._say("\n")
                        raise UserError(message)
        raise UserError("the answer broke off", remedy="ask again")

    def _say(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _note(self, message: str) -> None:
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
