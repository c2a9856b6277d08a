"""The detector ``pii``: which kinds to look for, what to let pass, and what stands in for what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from fulmen_raise_pii import finance, identity, internet, phone
from fulmen_safety import Finding
from fulmen_safety.pattern import Pattern
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.settings import Field, Table, read_settings

Kind = Literal["email", "phone", "resident_id", "credit_code", "bank_card", "passport", "ip_address", "iban", "us_ssn"]


class PiiSettings(Table):
    """Settings of the detector ``pii``.

    Args:
        kinds: what to look for.
        allow_reserved: let pass what is reserved for examples and tests: example.com, 555-0100, 192.0.2.1 and private
            networks.
        allow: values to let pass, as they are written, in any case; an organisation's own address, say.
        style: "placeholder" puts ``[EMAIL]`` in place of a finding, "mask" keeps its form and last characters.
    """

    kinds: tuple[Kind, ...] = Field(
        ("email", "phone", "resident_id", "credit_code", "bank_card", "passport", "ip_address", "iban", "us_ssn"),
        min_length=1,
    )
    allow_reserved: bool = False
    allow: tuple[str, ...] = ()
    style: Literal["placeholder", "mask"] = "placeholder"


def make(settings: Mapping[str, object]) -> PiiDetector:
    """Make the detector. Raises `UserError` for a setting that it does not know."""
    return PiiDetector(read_settings(PiiSettings, settings, "the settings of the detector 'pii'"))


class PiiDetector(PatternDetector):
    """Personal data in English and Chinese text. Streams exactly: see `fulmen_safety.pattern`."""

    def __init__(self, settings: PiiSettings) -> None:
        reserved = not settings.allow_reserved
        makers: dict[str, Callable[[], list[Pattern]]] = {
            "email": lambda: internet.email(reserved=reserved),
            "phone": lambda: phone.phone(reserved=reserved),
            "resident_id": identity.resident_id,
            "credit_code": identity.credit_code,
            "bank_card": finance.bank_card,
            "passport": identity.passport,
            "ip_address": lambda: internet.ip_address(reserved=reserved),
            "iban": finance.iban,
            "us_ssn": identity.us_ssn,
        }
        patterns = [pattern for kind in settings.kinds for pattern in makers[kind]()]
        if settings.allow:
            allowed = frozenset(value.casefold() for value in settings.allow)
            patterns = [replace(pattern, accept=_except(allowed, pattern.accept)) for pattern in patterns]
        super().__init__("pii", "privacy_pii", patterns)
        self._masked = settings.style == "mask"

    def replacement(self, found: str, finding: Finding) -> str:
        """Return ``[EMAIL]`` and the like, or with the style "mask" the form of what was found."""
        return mask(found) if self._masked else f"[{finding.label.upper()}]"


def mask(found: str) -> str:
    """Star out what identifies: the name of an e-mail address, of a number all but its last two to four characters."""
    _, at, domain = found.partition("@")
    if at:
        return f"***@{domain}"
    shown = 4 if sum(char.isalnum() for char in found) >= 15 else 2
    masked = []
    for char in reversed(found):
        masked.append(char if not char.isalnum() or shown > 0 else "*")
        shown -= char.isalnum()
    return "".join(reversed(masked))


def _except(allowed: frozenset[str], accept: Callable[[str], float]) -> Callable[[str], float]:
    return lambda found: 0.0 if found.casefold() in allowed else accept(found)
