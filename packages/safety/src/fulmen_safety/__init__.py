"""RAISE: one policy, one taxonomy and four components, from the corpus to the stream.

In: text, conversations, a policy file, detectors from plugins. Out: the guard ``raise`` and the verbs of `fulmen
    raise`.
May import: `fulmen_core` (hooks, descriptors, guard, errors, files), pydantic; `remote` alone httpx. Never a
    detector plugin by name.

A detector plugin imports this package alone; what it needs of core is passed on here.
"""

from __future__ import annotations

from fulmen_core.descriptors import DetectorInfo
from fulmen_core.errors import UserError
from fulmen_core.guard import Finding
from fulmen_core.hooks import hookimpl

__all__ = ["DetectorInfo", "Finding", "UserError", "hookimpl"]
