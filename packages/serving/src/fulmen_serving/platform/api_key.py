"""An API key: 256 random bits behind a readable prefix. Only its hash is ever stored."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

PREFIX = "fm-"
_SHOWN = 6


def new_secret() -> str:
    """Return a new key: "fm-" and 43 characters of base64url that carry 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal.

    No salt and no slow hash: those protect secrets that people choose, which can be guessed. 256 random bits cannot,
    and a fast, unsalted hash can be looked up. The lookup compares hashes, so its time says nothing about a secret.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def shown_prefix(secret: str) -> str:
    """Return the part of a key that may be shown: enough to recognise it, 220 bits short of using it."""
    return secret[: len(PREFIX) + _SHOWN]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; the secret is not.

    Attributes:
        id: names the key for ever.
        name: what its owner calls it.
        organisation_id, organisation: whose quota it uses.
        prefix: the part of the secret that may be shown.
        created, expires, revoked, last_used: Unix seconds; None: never.
        requests_per_minute, tokens_per_minute, max_concurrent: its limits; None: no limit.
        tokens_per_month: the quota of its organisation; None: no quota.
    """

    id: str
    name: str
    organisation_id: int
    organisation: str
    prefix: str
    created: int
    expires: int | None = None
    revoked: int | None = None
    last_used: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    tokens_per_month: int | None = None

    def state(self, now: float) -> str:
        """Whether it can be used: "active", "revoked" or "expired"."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"
