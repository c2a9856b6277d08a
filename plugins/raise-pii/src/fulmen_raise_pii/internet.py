"""E-mail and IP addresses."""

from __future__ import annotations

import ipaddress

from fulmen_safety.pattern import Pattern, chars, either, literal, repeat, seq

_DIGIT = chars("0-9")

#: Names reserved for documentation and tests (RFC 2606, RFC 6761).
_RESERVED_NAMES = ("example.com", "example.org", "example.net", "example", "test", "invalid", "localhost")


def email(*, reserved: bool) -> list[Pattern]:
    """E-mail addresses (RFC 5321 lengths). Reserved names are found only if `reserved`."""

    def accept(found: str) -> float:
        domain = found.rpartition("@")[2].lower()
        free = any(domain == name or domain.endswith("." + name) for name in _RESERVED_NAMES)
        return 0.0 if free and not reserved else 1.0

    label = repeat(chars("0-9A-Za-z-"), 1, 63)
    body = seq(
        chars("0-9A-Za-z_%+"),
        repeat(chars("0-9A-Za-z._%+-"), 0, 63),
        literal("@"),
        repeat(seq(label, literal(".")), 1, 8),
        repeat(chars("A-Za-z"), 2, 24),
    )
    return [
        Pattern(
            "email",
            body,
            anchor="@",
            not_before=(chars("0-9A-Za-z"),),
            not_after=chars("0-9A-Za-z"),
            accept=accept,
        )
    ]


def ip_address(*, reserved: bool) -> list[Pattern]:
    """IPv4 and IPv6 addresses. Those that stand for no machine never count; private and documentation ones if
    `reserved`."""

    def accept(found: str) -> float:
        try:
            address = ipaddress.ip_address(found)
        except ValueError:
            return 0.0
        nobody = address.is_loopback or address.is_unspecified or address.is_multicast or found.startswith("255.")
        if nobody or not (reserved or address.is_global):
            return 0.0
        return 0.8

    def accept_6(found: str) -> float:
        likely = "::" not in found or sum(char not in ":" for char in found) >= 5  # a::b is more often code
        return accept(found) if likely else 0.0

    octet = either(
        seq(literal("25"), chars("0-5")),
        seq(literal("2"), chars("0-4"), _DIGIT),
        seq(literal("1"), _DIGIT, _DIGIT),
        seq(chars("1-9"), _DIGIT),
        _DIGIT,
    )
    version_4 = seq(octet, repeat(seq(literal("."), octet), 3, 3))
    version_6 = seq(
        repeat(chars("0-9A-Fa-f"), 0, 4), literal(":"), repeat(chars("0-9A-Fa-f:"), 1, 34), chars("0-9A-Fa-f")
    )
    word = chars("0-9A-Za-z")
    return [
        Pattern(
            "ip_address",
            version_4,
            anchor=r"\.[0-9]{1,3}\.",
            not_before=(chars("0-9A-Za-z_"), seq(_DIGIT, literal("."))),
            not_after=either(word, seq(literal("."), _DIGIT)),
            accept=accept,
        ),
        Pattern(
            "ip_address",
            version_6,
            anchor=":[0-9A-Fa-f]{0,4}:",
            not_before=(chars("0-9A-Za-z:_"),),
            not_after=either(word, literal(":"), seq(literal("."), _DIGIT)),
            accept=accept_6,
        ),
    ]
