"""Secrets that their surroundings give away: private keys in PEM, passwords in addresses and connection strings, values
assigned to names such as ``api_key``."""

from __future__ import annotations

from fulmen_raise_secrets.evidence import entropy, is_placeholder, looks_random
from fulmen_safety.pattern import NOTHING, Node, Pattern, chars, either, literal, maybe, repeat, seq

_WORD_BEFORE = chars("0-9A-Za-z")


def surroundings() -> list[Pattern]:
    """All of them."""
    return [_private_key(), _address(), _connection_string(), *_assignments(), _authorization()]


def _private_key() -> Pattern:
    """From BEGIN to END, or as much as there is of what can be inside."""
    kind = maybe(seq(either(*map(literal, ("RSA", "EC", "DSA", "OPENSSH", "ENCRYPTED", "PGP"))), literal(" ")))
    begin = seq(literal("-----BEGIN "), kind, literal("PRIVATE KEY"), maybe(literal(" BLOCK")), literal("-----"))
    line_end = either(literal("\r\n"), literal("\n"), literal("\\r\\n"), literal("\\n"))
    header = seq(line_end, repeat(chars("A-Za-z-"), 2, 20), literal(": "), repeat(chars("0-9A-Za-z,. -"), 1, 80))
    base64 = chars("0-9A-Za-z+/=")
    line = seq(line_end, repeat(chars(" \t"), 0, 12), repeat(base64, 0, 80))
    # RSA of 8,192 bits has some hundred lines
    inside = seq(repeat(header, 0, 3), either(repeat(line, 1, 120), repeat(base64, 64, 7000)), maybe(line_end))
    end = maybe(seq(literal("-----END "), kind, literal("PRIVATE KEY"), maybe(literal(" BLOCK")), literal("-----")))

    def accept(found: str) -> float:
        return 1.0 if len(found) >= 100 else 0.0  # a mere heading has no key in it

    return Pattern("private_key", seq(begin, inside, end), "-----BEGIN ", accept=accept)


def _address() -> Pattern:
    """The password in ``scheme://user:password@host``."""
    user = repeat(chars("0-9A-Za-z._%+~-"), 0, 64)
    password = repeat(chars("0-9A-Za-z._%~!$&*+,;=^#?-"), 3, 128)
    return Pattern(
        "url_password",
        seq(password, literal("@")),
        "://[0-9A-Za-z._%+~-]{0,64}:",
        context=seq(literal("://"), user, literal(":")),
        not_after=chars("\\s"),
        accept=lambda found: 0.0 if _is_stand_in(found[:-1]) else 0.9,
    )


def _connection_string() -> Pattern:
    """The value of ``Password=``, ``Pwd=``, ``AccountKey=`` between the semicolons of a connection string."""
    names = ("Password", "Pwd", "AccountKey", "SharedAccessKey", "SharedSecret")
    name = either(*(literal(one, ignore_case=True) for one in names))
    value = repeat(chars("^;\"'\\s<>{}"), 4, 200)
    return Pattern(
        "connection_password",
        value,
        ";[ ]{0,2}[PpAaSs]",
        context=seq(
            literal(";"), repeat(chars(" "), 0, 2), name, repeat(chars(" "), 0, 1), literal("="), maybe(literal(" "))
        ),
        accept=lambda found: 0.0 if _is_stand_in(found) else 0.85,
    )


#: How names of secrets end: ``api_key``, ``clientSecret``, ``GITHUB_TOKEN``.
_NAMES = ("key", "secret", "token", "credential")
_PASSWORDS = ("password", "passwd", "passphrase", "db_pass", "pwd")


def _assignments() -> list[Pattern]:
    """A value that looks drawn, assigned to a name for secrets; and any quoted one assigned to a name for passwords,
    or one that follows ``密码``."""
    quote = chars("\"'`")
    between = seq(maybe(quote), repeat(chars(" \t"), 0, 2), either(literal(":="), literal("=>"), chars(":=")),
                  repeat(chars(" \t"), 0, 2))  # fmt: skip

    def named(names: tuple[str, ...]) -> Node:
        return either(*(literal(name, ignore_case=True) for name in sorted(names, key=len, reverse=True)))

    drawn = repeat(chars("0-9A-Za-z+/=_.~-"), 16, 256)
    quoted = repeat(chars("^\"'`\\s"), 6, 128)
    chinese = seq(
        either(*map(literal, ("密码", "口令", "密钥"))),
        maybe(either(literal("是"), literal("为"))),
        repeat(chars(" :："), 0, 2),
    )
    return [
        Pattern(
            "assigned_secret",
            drawn,
            "(?i:key|secret|token|credential)[\"'`]?[ \\t]{0,2}(?:[:=])",
            context=seq(named(_NAMES), between, maybe(quote)),
            not_after=chars("0-9A-Za-z+/=_.~(\\[-"),
            accept=lambda found: (
                0.8 if looks_random(found) and not is_placeholder(found) and entropy(found) > 3.3 else 0.0
            ),
        ),
        Pattern(
            "assigned_password",
            quoted,
            "(?i:pass|pwd)",
            context=seq(named(_PASSWORDS), between, quote),
            accept=lambda found: 0.0 if _is_stand_in(found) or not _is_mixed(found) else 0.8,
        ),
        Pattern(
            "assigned_password",
            repeat(chars("!-~"), 6, 64),
            "[密口]",
            context=chinese,
            accept=lambda found: 0.8 if _is_mixed(found) and not is_placeholder(found) else 0.0,
        ),
    ]


def _authorization() -> Pattern:
    """What follows ``Authorization: Bearer`` or ``Basic``."""
    scheme = either(*(literal(word, ignore_case=True) for word in ("bearer", "basic", "token")))
    before = seq(
        literal("authorization", ignore_case=True), repeat(chars("\"' "), 0, 2), chars(":="),
        repeat(chars("\"' "), 0, 2), scheme, literal(" "),
    )  # fmt: skip
    return Pattern(
        "authorization",
        repeat(chars("0-9A-Za-z+/=_.~-"), 16, 1500),
        "[Aa]uthorization|AUTHORIZATION",
        context=before,
        not_before=(_WORD_BEFORE,),
        not_after=NOTHING,
        accept=lambda found: 0.0 if is_placeholder(found) else 0.85,
    )


def _drawn(text: str) -> float:
    return 0.8 if looks_random(text) and not is_placeholder(text) and entropy(text) > 3.3 else 0.0


def _is_mixed(text: str) -> bool:
    """Whether there are both letters and digits, or a sign that no word has."""
    return any(char.isdigit() for char in text) and any(char.isalpha() for char in text)


_STAND_INS = "password passwd pass secret pwd user username token key postgres root admin test guest"


def _is_stand_in(text: str) -> bool:
    return text.casefold() in _STAND_INS.split() or is_placeholder(text) or text[0] in "$%{<["
