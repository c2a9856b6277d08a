"""What is served."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fulmen_serving.engine.adapter_places import AdapterRef


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is served, and what a request that says nothing gets.

    Attributes:
        name: what clients call it.
        backend: which backend runs it.
        stop_ids: tokens that end an answer.
        temperature, top_p: defaults, from generation_config.json or OpenAI's 1.
        fingerprint: changes whenever the same request might get another answer.
        created: Unix time of loading.
        reasoning: whether answers may begin with reasoning, which is told from what is said.
        embeds: whether its runner gives hidden states.
        adapter: what changes it; None: nothing.
        parent: the name of the model that the adapter changes; empty if there is none.
    """

    name: str
    backend: str
    stop_ids: frozenset[int]
    temperature: float = 1.0
    top_p: float = 1.0
    fingerprint: str = ""
    created: int = 0
    reasoning: bool = False
    embeds: bool = False
    adapter: AdapterRef | None = None
    parent: str = ""

    def changed_by(self, adapter: AdapterRef) -> ServedModel:
        """This model with `adapter`, under the adapter's name."""
        fingerprint = f"{self.fingerprint}_{adapter.fingerprint[:16]}"
        return replace(self, name=adapter.name, fingerprint=fingerprint, adapter=adapter, parent=self.name)
