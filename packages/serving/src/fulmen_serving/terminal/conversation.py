"""What was said so far."""

from __future__ import annotations

from fulmen_serving.prompt import Message


class Conversation:
    """A system prompt, perhaps, and turns."""

    def __init__(self, system: str = "") -> None:
        self.system = system
        self._turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """All messages, the system prompt first."""
        return ([{"role": "system", "content": self.system}] if self.system else []) + self._turns

    def ask(self, text: str) -> None:
        """The user says something."""
        self._turns.append({"role": "user", "content": text})

    def reply(self, text: str) -> None:
        """The model answered; what it said until it was stopped counts."""
        self._turns.append({"role": "assistant", "content": text})

    def take_back(self) -> None:
        """Forget the last message: it could not be answered."""
        self._turns.pop()

    def reset(self) -> None:
        """Forget the turns, keep the system prompt."""
        self._turns.clear()
