"""Which replica has seen which beginnings of prompts: chains of hashes, of which the longest known one wins.

A prompt is cut into blocks of one size, and each block's hash covers all blocks before it, so that one look-up a block
tells how far two prompts agree. The newest blocks of each replica are remembered, as its cache would keep them.
"""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

#: Characters of a block, some eight tokens. What agrees for less is not worth a detour.
BLOCK_CHARACTERS = 32
#: Blocks remembered for each replica: half a million tokens or so.
MAX_BLOCKS = 65_536

#: What of a request's body becomes its prompt, in the order in which chat templates write it.
_FIELDS = ("tools", "system", "instructions", "messages", "input", "prompt")

#: The hashes of a prompt's blocks, each of all blocks up to its own.
Prefix = tuple[int, ...]


def prefix_of(body: Mapping[str, Any], salt: str = "") -> Prefix:
    """Return the prefix of a request.

    Args:
        body: of a request for an answer, as JSON gave it. Other requests have an empty prefix.
        salt: prompts of different salts share nothing, as their caches do.
    """
    text = "\n".join(leaf for name in _FIELDS if name in body for leaf in _leaves(body[name]))
    state = hashlib.blake2b(repr((salt, body.get("model"))).encode("utf-8", "surrogatepass"), digest_size=8)
    prefix = []
    for start in range(0, len(text) - BLOCK_CHARACTERS + 1, BLOCK_CHARACTERS):
        state.update(text[start : start + BLOCK_CHARACTERS].encode("utf-8", "surrogatepass"))
        prefix.append(int.from_bytes(state.digest(), "little"))
    return tuple(prefix)


class PrefixMemory:
    """What each replica, known by its name, has seen. Not thread-safe.

    Args:
        imbalance: by how many requests a replica may be ahead of the least loaded one and still get more because it
            knows the beginning.
        max_blocks: remembered for each replica.
    """

    def __init__(self, imbalance: int, max_blocks: int = MAX_BLOCKS) -> None:
        self.imbalance, self._max_blocks = imbalance, max_blocks
        self._seen: dict[str, OrderedDict[int, None]] = {}

    def rank(self, prefix: Prefix, loads: Mapping[str, int]) -> list[str]:
        """Return the replicas of `loads` (name to requests that it has), the best for `prefix` first.

        Of those that are not too far ahead, the one that knows most of the beginning; of equals, the least loaded; of
        those again, one that follows from the first block alone, so that routers that share nothing agree.
        """
        least = min(loads.values(), default=0)

        def key(name: str) -> tuple[bool, int, int, int]:
            far = loads[name] - least > self.imbalance
            return far, 0 if far else -self.matched(name, prefix), loads[name], _lot(prefix, name)

        return sorted(loads, key=key)

    def matched(self, name: str, prefix: Prefix) -> int:
        """Return how many blocks of `prefix` the replica has seen, from the first on."""
        seen = self._seen.get(name) or OrderedDict[int, None]()
        return next((count for count, block in enumerate(prefix) if block not in seen), len(prefix))

    def remember(self, name: str, prefix: Prefix) -> None:
        """The replica has got a request with this prefix."""
        seen = self._seen.setdefault(name, OrderedDict())
        for block in reversed(prefix):  # the first block is the newest: the end of a chain is of no use without it
            seen[block] = None
            seen.move_to_end(block)
        while len(seen) > self._max_blocks:
            seen.popitem(last=False)

    def keep_only(self, names: Collection[str]) -> None:
        """Forget replicas that are not among `names`."""
        for name in self._seen.keys() - set(names):
            del self._seen[name]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value)  # token ids


def _lot(prefix: Prefix, name: str) -> int:
    if not prefix:
        return random.getrandbits(32)
    return int.from_bytes(hashlib.blake2b(f"{prefix[0]} {name}".encode(), digest_size=4).digest(), "little")
