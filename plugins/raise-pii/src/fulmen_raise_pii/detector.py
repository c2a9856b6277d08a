"""The detector ``pii``: which kinds to look for, what to let pass, and what stands in for what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from fulmen_raise_pii import address, birth, finance, identity, internet, permits, phone
from fulmen_raise_pii.replacement import Replacement, ReplacementSettings
from fulmen_safety import Finding
from fulmen_safety.pattern import Pattern
from fulmen_safety.pattern_detector import PatternDetector
from fulmen_safety.settings import Field, read_settings

Kind = Literal[
    "email", "phone", "resident_id", "credit_code", "bank_card", "passport", "permit", "regional_id", "driver_license",
    "number_plate", "ip_address", "url_credentials", "url", "iban", "us_ssn", "birth_date", "address",
]  # fmt: skip

#: What is looked for by default: all but web addresses, which are seldom anybody's.
DEFAULT_KINDS: tuple[Kind, ...] = (
    "email", "phone", "resident_id", "credit_code", "bank_card", "passport", "permit", "regional_id", "driver_license",
    "number_plate", "ip_address", "url_credentials", "iban", "us_ssn", "birth_date", "address",
)  # fmt: skip


class PiiSettings(ReplacementSettings):
    """Settings of the detector ``pii``; how to replace what is found: see `ReplacementSettings`.

    Args:
        kinds: what to look for.
        allow_reserved: let pass what is reserved for examples and tests: example.com, 555-0100, 192.0.2.1, private
            networks, the card numbers that payment services publish for tests.
        allow: values to let pass, as they are written, in any case; an organisation's own address, say.
    """

    kinds: tuple[Kind, ...] = Field(DEFAULT_KINDS, min_length=1)
    allow_reserved: bool = False
    allow: tuple[str, ...] = ()


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
            "bank_card": lambda: finance.bank_card(reserved=reserved),
            "passport": identity.passport,
            "permit": permits.permit,
            "regional_id": permits.regional_id,
            "driver_license": permits.driver_license,
            "number_plate": permits.number_plate,
            "ip_address": lambda: internet.ip_address(reserved=reserved),
            "url_credentials": internet.url_credentials,
            "url": lambda: internet.url(reserved=reserved),
            "iban": finance.iban,
            "us_ssn": identity.us_ssn,
            "birth_date": birth.birth_date,
            "address": address.address,
        }
        patterns = [pattern for kind in settings.kinds for pattern in makers[kind]()]
        if settings.allow:
            allowed = frozenset(value.casefold() for value in settings.allow)
            patterns = [replace(pattern, accept=_except(allowed, pattern.accept)) for pattern in patterns]
        super().__init__("pii", "privacy_pii", patterns)
        self.kinds: tuple[str, ...] = settings.kinds
        self._replacement = Replacement(settings)

    def replacement(self, found: str, finding: Finding) -> str:
        """Return ``[EMAIL]`` and the like, the form of what was found, or a surrogate, as the settings say."""
        return self._replacement(found, finding.label)


def _except(allowed: frozenset[str], accept: Callable[[str], float]) -> Callable[[str], float]:
    return lambda found: 0.0 if found.casefold() in allowed else accept(found)
