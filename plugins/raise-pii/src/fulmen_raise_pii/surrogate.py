"""Consistent surrogates: another value of the same kind and form in place of one that was found.

The same value always gets the same surrogate under a key, another value another one with overwhelming likelihood, and
without the key nobody can tell which it stands for (HMAC-SHA-256, FIPS 198-1). Check digits are right, regions exist,
dates are dates, networks and names are those kept for examples where there are such. A surrogate has the separators
and the case of what it stands for, not its digits: two ways of writing one number get the same number.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
from collections.abc import Callable

from fulmen_raise_pii import check_digits
from fulmen_raise_pii.regions import counties

_LETTERS = "ABCDEFGHJKLMNPQRTUVWXY"


class Draws:
    """An endless stream of digits that a key and a value determine."""

    def __init__(self, key: bytes, kind: str, value: str) -> None:
        seed = hmac.new(key, f"{kind}\x00{value}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        self._number = int.from_bytes(hashlib.shake_256(seed).digest(256))

    def below(self, limit: int) -> int:
        """Return a number in [0, limit)."""
        self._number, drawn = divmod(self._number, limit)
        return drawn

    def digits(self, count: int) -> str:
        """Return that many digits."""
        return f"{self.below(10**count):0{count}}" if count else ""

    def of(self, choices: str | tuple[str, ...]) -> str:
        """Return one of `choices`."""
        return choices[self.below(len(choices))]


def surrogate(found: str, kind: str, key: bytes) -> str:
    """Return what stands in for `found`. A kind that has no form to keep gets its label and a number,
    ``[ADDRESS-58301762]``."""
    plain = _plain(found)
    bare = "".join(char for char in plain if char.isalnum()).upper()
    if kind in ("email", "url", "ip_address"):
        bare = plain.casefold()
    draws = Draws(key, kind, bare)
    if kind in _MAKERS:
        for _ in range(8):  # a surrogate must never be the value itself
            made = _MAKERS[kind](bare, draws)
            if made and made != bare:
                return _formed(made, plain) if kind in _FORMED else made
    return f"[{kind.upper()}-{draws.digits(8)}]"


def _plain(found: str) -> str:
    """Return full-width characters as ASCII, and nothing that does not show."""
    half = (chr(ord(char) - 0xFEE0) if "！" <= char <= "～" else char for char in found)
    return "".join(char for char in half if char.isprintable() or char.isspace())


def _formed(made: str, found: str) -> str:
    """Return the characters of `made` between the separators of `found`, small where all its letters are."""
    if sum(char.isalnum() for char in found) != len(made):
        return made
    characters = iter(made.lower() if found.islower() else made)
    return "".join(next(characters) if char.isalnum() else char for char in found)


def _resident(bare: str, draws: Draws) -> str:
    if len(bare) != 18:
        return ""
    first = draws.of(counties()) + _birthday(bare[6:10], draws).strftime("%Y%m%d")
    serial = f"{draws.below(500) * 2 + int(bare[16]) % 2:03}"  # odd for men
    return first + serial + check_digits.resident_check(first + serial)


def _birthday(year: str, draws: Draws) -> datetime.date:
    """Return a day within four years of `year`: ages stay plausible."""
    born = max(1900, int(year) - 4 + draws.below(9))
    return datetime.date(born, 1, 1) + datetime.timedelta(days=draws.below(365))


def _credit_code(bare: str, draws: Draws) -> str:
    characters = check_digits.CREDIT_CODE_CHARACTERS
    first = bare[:2] + draws.of(counties()) + "".join(draws.of(characters) for _ in range(9))
    return first + check_digits.credit_check(first)


def _bank_card(bare: str, draws: Draws) -> str:
    """Keep the issuer's first digits, so that it still is a card of that brand and length."""
    kept = 2 if len(bare) < 16 else 4 if bare[0] in "268" else 2
    first = bare[:kept] + draws.digits(len(bare) - kept - 1)
    return next(first + digit for digit in "0123456789" if check_digits.luhn(first + digit))


def _iban(bare: str, draws: Draws) -> str:
    account = "".join(draws.of("0123456789") if char.isdigit() else draws.of(_LETTERS) for char in bare[4:])
    number = int("".join(str(int(char, 36)) for char in account + bare[:2] + "00"))
    return f"{bare[:2]}{98 - number % 97:02}{account}"


def _phone(bare: str, draws: Draws) -> str:
    """Keep the country and the first digits of the network; North American numbers get an exchange that exists."""
    digits = bare.partition("X")[0]
    if re.fullmatch(r"(?:0?0?86)?1[3-9]\d{9}", digits):
        return digits[:-8] + draws.digits(8) + bare[len(digits) :]
    kept = max(0, len(digits) - 7)
    return digits[:kept] + str(2 + draws.below(8)) + draws.digits(len(digits) - kept - 1) + bare[len(digits) :]


def _ssn(_: str, draws: Draws) -> str:
    area = 1 + draws.below(898)
    return f"{area + (area >= 666):03}{1 + draws.below(99):02}{1 + draws.below(9999):04}"


def _email(_: str, draws: Draws) -> str:
    return f"user{draws.digits(10)}@example.com"


def _ip(_: str, draws: Draws) -> str:
    """Return an address kept for documentation (RFC 3849), or of the network for benchmarks (RFC 2544): those for
    documentation are too few in version 4 to tell addresses apart."""
    return f"198.{18 + draws.below(2)}.{draws.below(256)}.{1 + draws.below(254)}"


def _ip_6(draws: Draws) -> str:
    return "2001:db8:" + ":".join(f"{draws.below(0xFFFF) + 1:x}" for _ in range(6))


def _regional_id(bare: str, draws: Draws) -> str:
    if len(bare) == 10:
        first = bare[:2] + draws.digits(7)
        return first + check_digits.taiwan_check(first)
    first = bare[:-7] + draws.digits(6)
    return first + check_digits.hong_kong_check(first)


def _same_classes(bare: str, draws: Draws) -> str:
    """Return letters for letters and digits for digits; a leading letter stays, it says what the number is."""
    rest = (draws.of("0123456789") if char.isdigit() else draws.of(_LETTERS) for char in bare[1:])
    head = bare[0] if bare[0].isalpha() else str(1 + draws.below(9))
    return head + "".join(rest)


def _url(_: str, draws: Draws) -> str:
    return f"https://www.example.com/{draws.digits(10)}"


def _birth_date(bare: str, draws: Draws) -> str:
    """Return a date in the same order of day, month and year if that is told by the digits alone."""
    if not bare.isdigit() or len(bare) != 8:
        return ""
    year_first = bare[:2] in ("18", "19", "20")
    date = _birthday(bare[:4] if year_first else bare[4:], draws)
    return f"{date:%Y%m%d}" if year_first else f"{date:%m%d%Y}"


_MAKERS: dict[str, Callable[[str, Draws], str]] = {
    "resident_id": _resident,
    "credit_code": _credit_code,
    "bank_card": _bank_card,
    "iban": _iban,
    "phone": _phone,
    "us_ssn": _ssn,
    "email": _email,
    "ip_address": lambda bare, draws: _ip_6(draws) if ":" in bare else _ip(bare, draws),
    "regional_id": _regional_id,
    "passport": _same_classes,
    "permit": _same_classes,
    "driver_license": _same_classes,
    "url": _url,
    "birth_date": _birth_date,
}

#: Kinds whose surrogate takes over the separators of what was found.
_FORMED = frozenset(_MAKERS) - {"email", "ip_address", "url"}
