"""The check digits of the numbers that have one. Each function takes the bare number and returns whether it is
consistent."""

from __future__ import annotations

#: Characters of a unified social credit code in the order of their values (GB 32100-2015): no I, O, S, V, Z.
CREDIT_CODE_CHARACTERS = "0123456789ABCDEFGHJKLMNPQRTUWXY"

_RESIDENT_WEIGHTS = tuple(pow(2, 17 - place, 11) for place in range(17))
_RESIDENT_CHECKS = "10X98765432"
_CREDIT_WEIGHTS = tuple(pow(3, place, 31) for place in range(17))
_CREDIT_VALUES = {char: value for value, char in enumerate(CREDIT_CODE_CHARACTERS)}


def luhn(digits: str) -> bool:
    """Bank cards (ISO/IEC 7812-1): every second digit from the right doubled, the sum of all digits divisible by
    ten."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def resident_check(first_17: str) -> str:
    """Return the eighteenth character of a resident ID (GB 11643-1999, ISO 7064 MOD 11-2)."""
    total = sum(weight * int(digit) for weight, digit in zip(_RESIDENT_WEIGHTS, first_17, strict=True))
    return _RESIDENT_CHECKS[total % 11]


def credit_check(first_17: str) -> str:
    """Return the eighteenth character of a unified social credit code (GB 32100-2015, MOD 31-3)."""
    total = sum(weight * _CREDIT_VALUES[char] for weight, char in zip(_CREDIT_WEIGHTS, first_17, strict=True))
    return CREDIT_CODE_CHARACTERS[-total % 31]


def iban(compact: str) -> bool:
    """IBAN (ISO 13616): with the first four characters moved to the end and letters as numbers, 1 modulo 97."""
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def hong_kong_check(card: str) -> str:
    """Return the check character of a Hong Kong identity card, one or two letters and six digits (MOD 11)."""
    values = [36 if len(card) == 7 else ord(card[0]) - 55, ord(card[-7]) - 55, *map(int, card[-6:])]
    total = sum(weight * value for weight, value in zip(range(9, 1, -1), values, strict=True))
    return "0123456789A"[-total % 11]


def taiwan_check(card: str) -> str:
    """Return the last digit of a Taiwan identity card, a letter and eight digits."""
    number = 10 + "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(card[0])
    digits = [number // 10, number % 10, *map(int, card[1:])]
    total = sum(weight * digit for weight, digit in zip((1, 9, 8, 7, 6, 5, 4, 3, 2, 1), digits, strict=True))
    return str(-total % 10)
