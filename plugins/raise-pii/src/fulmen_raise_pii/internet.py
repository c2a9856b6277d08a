"""E-mail and IP addresses, web addresses, passwords in them."""

from __future__ import annotations

import ipaddress

from fulmen_safety.pattern import Pattern, chars, either, literal, maybe, repeat, seq

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


def url_credentials() -> list[Pattern]:
    """User name and password in a web address: ``https://name:password@host``. Found is what stands before the at
    sign."""
    scheme = seq(repeat(chars("A-Za-z+"), 2, 12), literal("://"))
    name, password = repeat(chars("0-9A-Za-z._%~-"), 0, 64), repeat(chars("0-9A-Za-z._%~!$&*+,;=-"), 1, 128)
    body = seq(name, literal(":"), password, literal("@"))
    return [
        Pattern(
            "url_credentials",
            body,
            "://[0-9A-Za-z._%~-]{0,64}:",
            context=scheme,
            not_before=(chars("A-Za-z+"),),
            not_after=chars(r"\s"),
        )
    ]


def url(*, reserved: bool) -> list[Pattern]:
    """Web addresses. Those under reserved names are found only if `reserved`."""

    def accept(found: str) -> float:
        host = found.split("://", 1)[-1].split("/", 1)[0].rpartition("@")[2].partition(":")[0].lower()
        free = any(host == name or host.endswith("." + name) for name in _RESERVED_NAMES)
        return 0.9 if "." in host and (reserved or not free) else 0.0

    letter = chars("0-9A-Za-z")
    start = either(
        seq(literal("http", ignore_case=True), maybe(chars("sS")), literal("://")), literal("www.", ignore_case=True)
    )
    body = seq(start, letter, repeat(chars("0-9A-Za-z._~:/?#@!$&*+=%-"), 1, 300), chars("0-9A-Za-z/=_"))
    return [Pattern("url", body, "://|[Ww]{3}\\.", not_before=(letter,), accept=accept)]
