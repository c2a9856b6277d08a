"""How many of the numbers with check digits are found in generated Chinese text, and how much else is taken for them.

    python bench/pii_chinese.py --texts 5000 --json

Independent of the detector: resident IDs and cards come from Faker, credit codes are checked by python-stdnum before
they are used, and half of the texts hold look-alikes instead: numbers of the same form with a wrong check digit, order
numbers, hashes, amounts. Values stand glued to Chinese text, in full width or with separators. Needs Faker and
python-stdnum.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

from faker import Faker
from stdnum.cn import uscc
from stdnum.exceptions import ValidationError

from fulmen_raise_pii.detector import make
from fulmen_safety.normalise import views

FRAMES = (
    "我的身份证号码是{}，请查收。", "客户{}已登记", "证件号{}，电话稍后提供", "请转账到{}谢谢", "税号：{}。开票请注明",
    "（{}）",
    "号码{}和之前的不同", "编号 {} 已核对", "「{}」", "如下：\n{}\n以上", "付款账户{}余额不足",
    "统一社会信用代码{}有效",
)  # fmt: skip
KINDS = ("resident_id", "credit_code", "bank_card")

Random = random.Random


def resident_id(faker: Faker, rng: Random) -> str:
    """An ID of Faker's, sometimes with blanks or a small x."""
    number: str = faker.ssn()
    form = rng.random()
    if form < 0.1:
        return f"{number[:6]} {number[6:14]} {number[14:]}"
    return number.lower() if form < 0.2 else number


def credit_code(_: Faker, rng: Random) -> str:
    """A code that python-stdnum takes for valid."""
    letters = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    while True:
        region = rng.choice(("110105", "310115", "440300", "330106", "510104", "420111", "610113", "370202"))
        first = rng.choice(("91", "92", "93", "51", "52", "12", "31")) + region
        first += "".join(rng.choice(letters) for _ in range(9))
        for last in letters:
            try:
                return str(uscc.validate(first + last))
            except ValidationError:
                continue


def bank_card(faker: Faker, rng: Random) -> str:
    """A card of Faker's or of UnionPay, sometimes in groups of four."""
    number: str = faker.credit_card_number()
    if rng.random() < 0.6:
        length = rng.choice((16, 17, 18, 19))
        first = rng.choice(("622202", "621700", "622848", "625965", "623058")).ljust(length - 1, "0")
        first = first[:6] + "".join(rng.choice("0123456789") for _ in range(length - 7))
        total = sum(sum(divmod(int(d) * (1 + (place % 2 == 0)), 10)) for place, d in enumerate(reversed(first)))
        number = first + str(-total % 10)
    if rng.random() < 0.25:
        return " ".join(number[place : place + 4] for place in range(0, len(number), 4))
    return number


MAKERS: dict[str, Callable[[Faker, Random], str]] = {
    "resident_id": resident_id,
    "credit_code": credit_code,
    "bank_card": bank_card,
}


def look_alike(faker: Faker, rng: Random) -> str:
    """Something of the same form that is none of them: its last character is changed, or it is another number."""
    draw = rng.random()
    if draw < 0.6:
        value = MAKERS[rng.choice(KINDS)](faker, rng)
        last = value[-1]
        return value[:-1] + rng.choice([char for char in "0123456789" if char != last])
    if draw < 0.75:
        return f"{rng.randrange(10**17, 10**18)}"
    if draw < 0.85:
        return f"{rng.getrandbits(128):032x}"
    return f"{rng.randrange(2015, 2026)}{rng.randrange(1, 13):02}{rng.randrange(1, 29):02}{rng.randrange(10**8):08}"


def is_one(kind: str, value: str) -> bool:
    """Whether an altered or drawn number happens to be a valid one after all, told by python-stdnum."""
    from stdnum import luhn
    from stdnum.cn import ric

    bare = value.replace(" ", "")
    return bool(
        {"resident_id": ric.is_valid, "credit_code": uscc.is_valid, "bank_card": luhn.is_valid}[kind](bare.upper())
    )


def main() -> int:
    """Measure; print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng, faker, detector = Random(options.seed), Faker("zh_CN"), make({})
    faker.seed_instance(options.seed)
    wanted: Counter[str] = Counter()
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    seconds = 0.0
    for number in range(options.texts):
        kind = KINDS[number // 2 % len(KINDS)]
        value = MAKERS[kind](faker, rng) if number % 2 else look_alike(faker, rng)
        if number % 2 == 0 and any(is_one(other, value) for other in KINDS):
            continue
        before, after = rng.choice(FRAMES).split("{}")
        if rng.random() < 0.1:
            value = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in value)
        text = before + value + after
        began = time.perf_counter()
        seen = {
            (*view.raw_span(one.start, one.end), one.label)
            for view in views(text)
            for one in detector.scan(view.text)
            if one.score >= 0.5 and one.label in KINDS
        }
        seconds += time.perf_counter() - began
        gold = {(len(before), len(before) + len(value), kind)} if number % 2 else set()
        wanted.update(one[2] for one in gold)
        found.update(one[2] for one in seen)
        right.update(one[2] for one in gold & seen)
    report = {
        kind: {
            "f1": round(2 * right[kind] / max(1, wanted[kind] + found[kind]), 4),
            "spans": wanted[kind],
            "missed": wanted[kind] - right[kind],
            "false": found[kind] - right[kind],
        }
        for kind in KINDS
    }
    total = round(2 * right.total() / max(1, wanted.total() + found.total()), 4)
    result = {"texts": options.texts, "f1": total, **report, "ms_per_text": round(seconds * 1000 / options.texts, 3)}
    print(json.dumps(result, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
