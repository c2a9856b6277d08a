"""What travels between the ingress and a replica: one HTTP request, and the beginning of its response."""

from __future__ import annotations

from dataclasses import dataclass

HeaderList = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request whose body has arrived."""

    method: str
    path: str
    query: bytes
    headers: HeaderList
    body: bytes
    client: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What comes before the body, and which replica sends it."""

    status: int
    headers: HeaderList
    replica: str
