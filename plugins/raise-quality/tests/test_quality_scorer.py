"""The trained scorer tells reference texts from others, and is the same however it is stored."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fulmen_raise_quality.cli.entry import run
from fulmen_raise_quality.detector import make
from fulmen_raise_quality.ngram_model import ORDERS, NgramModel
from fulmen_raise_quality.scorer import Scorer
from fulmen_raise_quality.training import train
from fulmen_safety import UserError

ENGLISH_TEXT = "the a boat harbour man walked slowly over old bridge and looked at water below him for long time"
CHINESE_TEXT = "清晨 港口 安静 渔船 堤岸 老人 灯笼 风暴 船队 回家 太阳 孩子 桥上 河水 的 在 了 和"
ENGLISH, CHINESE = ENGLISH_TEXT.split(), CHINESE_TEXT.split()


def prose(seed: int, words: list[str], joint: str, count: int) -> list[str]:
    source = random.Random(seed)
    return [joint.join(source.choices(words, k=60)) for _ in range(count)]


def noise(seed: int, letters: str, count: int) -> list[str]:
    source = random.Random(seed)
    return ["".join(source.choices(letters, k=200)) for _ in range(count)]


GOOD = [*prose(1, ENGLISH, " ", 400), *prose(2, CHINESE, "", 400)]
BAD = [*noise(3, "abcdefghijklmnopqrstuvwxyz ", 300), *noise(4, "清晨港口渔船河水桥上的在了", 300)]


def test_probabilities_are_smoothed_counts_and_sum_to_one() -> None:
    texts = ["abcab abd", "bca bcd"]
    model = NgramModel.fit(texts, 20)
    counts: Counter[str] = Counter()
    for text in texts:
        padded = "\0\0\0 " + text
        counts.update(padded[at - n + 1 : at + 1] for at in range(4, len(padded)) for n in range(1, ORDERS + 1))

    def bits(text: str) -> float:
        padded, total = "\0\0\0 " + text, 0.0
        for at in range(4, len(padded)):
            p = 1 / 20_000
            for n in range(1, ORDERS + 1):
                gram = padded[at - n + 1 : at + 1]
                # the history of a text's first characters is not counted itself: it ends in the blank before the text
                history = sum(map(len, texts)) if n == 1 else 0 if at == 4 else counts[gram[:-1]]
                p = (counts[gram] + 8 * p) / (max(history, counts[gram]) + 8)
            total -= math.log2(p)
        return total / len(text)

    for text in ("abc", "abd bcab", "zzz"):
        assert model.bits_per_character(text) == pytest.approx(bits(text), rel=1e-4)
    assert model.bits_per_character("") == 0.0


def test_unlike_texts_are_unusual_among_the_reference_texts() -> None:
    scorer, card = train(GOOD, [], 16)
    fresh_of = {"en": prose(11, ENGLISH, " ", 100), "zh": prose(13, CHINESE, "", 100)}
    strange_of = {"en": noise(12, "abcdefghij ", 100), "zh": noise(14, "清晨港口渔船河水", 100)}
    for language, fresh in fresh_of.items():
        strange = strange_of[language]
        assert np.mean([scorer.score(text) >= 0.5 for text in fresh]) < 0.1
        assert np.mean([scorer.score(text) >= 0.5 for text in strange]) > 0.9
        assert card["held_out"][language]["good"]["flagged"] < 0.1


def test_with_contrary_texts_it_tells_the_two_apart() -> None:
    scorer, card = train(GOOD, BAD, 16)
    assert card["held_out"]["en"]["bad"]["flagged"] > 0.9 > 0.1 > card["held_out"]["en"]["good"]["flagged"]
    assert scorer.score("short") is None
    only_english, _ = train(prose(1, ENGLISH, " ", 400), [], 16)
    assert only_english.score("清晨的港口" * 20) is None


def test_it_is_stored_whole_and_read_back_the_same(tmp_path: Path) -> None:
    scorer, card = train(GOOD, BAD, 14)
    scorer.save(tmp_path / "s", card)
    again = Scorer.load(tmp_path / "s")
    for text in [*prose(21, ENGLISH, " ", 5), *noise(22, "清晨港口abc ", 5)]:
        assert again.score(text) == pytest.approx(scorer.score(text), abs=1e-3)
    weights = (tmp_path / "s/model.safetensors").read_bytes()
    train(GOOD, BAD, 14)[0].save(tmp_path / "t", card)
    assert (tmp_path / "t/model.safetensors").read_bytes() == weights
    (tmp_path / "s/model.safetensors").write_bytes(weights[:-3])
    with pytest.raises(UserError, match="damaged"):
        Scorer.load(tmp_path / "s")


def test_the_verbs_train_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, texts in (("good", GOOD), ("bad", BAD)):
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    out = str(tmp_path / "scorer")
    told = ["--good", str(tmp_path / "good.jsonl"), "--bad", str(tmp_path / "bad.jsonl"), "--out", out]
    assert run(["train", *told, "--slot-bits", "14", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trained_on"]["good"] > 500
    files = [str(tmp_path / f"{name}.jsonl") for name in ("good", "bad")]
    assert run(["report", *files, "--scorer", out, "--json"]) == 0
    good, bad = json.loads(capsys.readouterr().out)
    assert good["rules"].get("unusual", 0) < 40 < 500 < bad["rules"]["unusual"]
    assert make({"scorer": out, "rules": []}).scores(BAD[0])["low_quality"] > 0.5
    with pytest.raises(UserError, match="too few texts"):
        train(GOOD[:3], [], 14)
