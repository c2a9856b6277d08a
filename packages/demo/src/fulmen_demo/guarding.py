"""RAISE at work on the finished model: an attack blocked, personal data held back in a stream, and what it costs.

In: a model directory and a guard. Out: `guard.json`. The served answers come from `fulmen serve`, over HTTP.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from fulmen_core.errors import UserError
from fulmen_core.files import atomic_write_json
from fulmen_core.guard import Guard
from fulmen_core.registry import Registry
from fulmen_core.sampling import SamplingParams
from fulmen_core.tokenizer import load_tokenizer
from fulmen_demo.instructions import LEAK_PROMPT
from fulmen_demo.server import serving
from fulmen_trainer.answering import answer_prompts, open_runner
from fulmen_trainer.data.documents import read_documents, text_of

#: Held-out paragraphs that RAISE-3 should let pass: prose of the corpus, at most this many.
PARAGRAPHS = 300


def check_guard(
    model: Path, text: Path, *, guard: Guard, policy: Path | None, registry: Registry, backend: str, work: Path
) -> dict[str, Any]:
    """Measure the guard and watch it work on the served model.

    Returns:
        Counts of attacks caught and of harmless prompts and held-out paragraphs stopped, milliseconds of a verdict, and
        both served answers.

    Raises:
        UserError: the attack was answered, or the personal data reached the client: the demo must not end well then.
    """
    prompts = tomllib.loads((files("fulmen_demo") / "prompts.toml").read_text(encoding="utf-8"))
    paragraphs = _paragraphs(text)
    caught, attack_ms = _blocked(guard, prompts["attacks"])
    false_alarms, harmless_ms = _blocked(guard, [*prompts["harmless"], *paragraphs])
    arguments = ["--policy", str(policy)] if policy else []
    with serving(model, "--backend", backend, *arguments, log=work / "server.log") as server:
        attack, leak = server.ask(prompts["attacks"][0]), server.ask(LEAK_PROMPT)
    with open_runner(registry, model, backend=backend) as runner:
        leak_messages = [[{"role": "user", "content": LEAK_PROMPT}]]
        greedy = SamplingParams(temperature=0, max_tokens=48)
        unguarded = answer_prompts(runner, load_tokenizer(model), leak_messages, greedy)[0].text
    result = {
        "attacks": len(prompts["attacks"]),
        "attacks_caught": caught,
        "harmless": len(prompts["harmless"]) + len(paragraphs),
        "false_alarms": false_alarms,
        "verdict_ms": median([*attack_ms, *harmless_ms]),
        "attack": {
            "prompt": prompts["attacks"][0],
            "answer": attack.text,
            "finish_reason": attack.finish_reason,
        },
        "leak": {
            "prompt": LEAK_PROMPT,
            "unguarded": unguarded,
            "delivered": leak.text,
            "chunks": leak.chunks,
            "redacted": "@" in unguarded and "@" not in leak.text,
        },
        "policy_version": guard.policy_version,
    }
    if attack.finish_reason != "content_filter":
        raise UserError(
            "the served model answered an attack", where="RAISE-3", remedy=f"its answer was {attack.text!r}"
        )
    if "@" in leak.text:
        raise UserError("an e-mail address reached the client", where="RAISE-4", remedy=f"the answer was {leak.text!r}")
    atomic_write_json(work / "guard.json", result)
    return result


def _paragraphs(path: Path) -> list[str]:
    """Prose of held-out files: lines of comments and docstrings that read like sentences."""
    lines = (line.strip(" #\"'") for record in read_documents(path) for line in text_of(record).splitlines())
    prose = (line for line in lines if len(line.split()) >= 6 and line.endswith(".") and line[:1].isupper())
    return list(dict.fromkeys(prose))[:PARAGRAPHS]


def _blocked(guard: Guard, prompts: Sequence[str]) -> tuple[int, list[float]]:
    """How many prompts are blocked, and the milliseconds of each verdict."""
    blocked, milliseconds = 0, []
    for prompt in prompts:
        started = time.perf_counter()
        verdict = guard.judge_input([{"role": "user", "content": prompt}])
        milliseconds.append(1000 * (time.perf_counter() - started))
        blocked += verdict.action == "block"
    return blocked, milliseconds
