"""A guard as a plugin file whose process can be made to die or to hang by what it reads. Its policy names nothing."""

from __future__ import annotations

import os
import signal
import time

from fulmen_core.descriptors import GuardInfo
from fulmen_core.guard import Finding, InputVerdict, OutputChunk
from fulmen_core.hooks import hookimpl


class BrittleStream:
    """Holds back four characters, hides digits, stops at "stop!", dies of "die!", hangs at "hang!"."""

    def __init__(self) -> None:
        self.text, self.delivered = "", 0

    def feed(self, text: str) -> OutputChunk:
        self.text += text
        suffer(self.text)
        return self.chunk(len(self.text) - 4)

    def finish(self) -> OutputChunk:
        return self.chunk(len(self.text))

    def chunk(self, end: int) -> OutputChunk:
        stop = self.text.find("stop!")
        if stop >= 0:
            end = stop
        piece = self.text[self.delivered : max(end, self.delivered)]
        places = [self.delivered + index for index, character in enumerate(piece) if character.isdigit()]
        self.delivered += len(piece)
        digits = [Finding("digits", "pii", 1.0, place, place + 1) for place in places]
        shown = "".join("#" if c.isdigit() else c for c in piece)
        return OutputChunk(shown, stop >= 0, tuple(digits), "stopped" if stop >= 0 else "")


class BrittleGuard:
    name, policy_version = "raise", "brittle-1"

    def judge_document(self, text):
        raise NotImplementedError

    def reward_penalty(self, prompt, answer):
        raise ValueError("no reward here")

    def judge_input(self, messages):
        suffer(" ".join(message["content"] for message in messages))
        return InputVerdict("allow", tuple(messages))

    def crosswalk(self, scheme):
        return {"violence": ("leak",)} if scheme == "openai" else {}

    def open_output(self, messages):
        return BrittleStream()


def suffer(text: str) -> None:
    if "die!" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang!" in text:
        time.sleep(600)


@hookimpl
def fulmen_guards():
    return [GuardInfo("raise", "for the tests of what survives it", lambda policy, registry: BrittleGuard())]
