"""Does a stream ever give away what the guard takes out? Planted secrets in random answers, cut at random places.

    python bench/stream_leaks.py --chunkings 100000 --jobs 2 --json
    python bench/stream_leaks.py --chunkings 2000 --policy my-policy.toml --seed 7

Answers hold personal data with valid check digits, keys of services (if a detector for them is installed) and terms
that the policy lists, plain or disguised, in English and Chinese. Each is streamed through every detector of the policy
in several random cuttings. A chunking leaks if, after any piece,

* what was delivered is not how the answer judged at once begins (something left that would have been withheld), or
* a planted value that was plain, or that the guard found when it saw the whole answer, can be read in what was
  delivered, with blanks, punctuation and disguises undone.

Disguises that the guard does not see through even in the whole answer are counted apart, as `unseen`: they are no
matter of streaming. What is tried depends on the seed alone, not on the number of jobs. Exits 1 if anything leaked.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from leaking.answers import Answer, draw_answer, draw_pieces
from leaking.planted import TERMS, traces

from fulmen_core.errors import UserError
from fulmen_core.registry import Registry
from fulmen_safety.guard import RaiseGuard
from fulmen_safety.policy import Policy, load_policy, make_policy

#: Cuttings of one answer.
_PER_ANSWER = 10
_SHOWN = 5  # leaks that are spelled out
#: Cuttings that one seed is for.
_BLOCK = 1000


@dataclass
class Leaks:
    """What was tried, and what came of it."""

    chunkings: int = 0
    leaks: int = 0
    pieces: int = 0
    planted: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Leaks) -> None:
        """Count what another run tried, too."""
        self.chunkings += other.chunkings
        self.leaks += other.leaks
        self.pieces += other.pieces
        self.planted += other.planted
        self.unseen += other.unseen
        self.examples = [*self.examples, *other.examples][:_SHOWN]


def main() -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Try to make a guarded stream leak.")
    parser.add_argument("--chunkings", type=int, default=2000)
    parser.add_argument("--policy", type=Path, help="default: the policy in the package, with a few terms")
    parser.add_argument("--seed", type=int, help="default: another one each time; it is printed")
    parser.add_argument("--jobs", type=int, default=1, help="processes to share the work")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    try:
        guard = _guard(options.policy)
    except UserError as error:
        print(f"stream_leaks: {error}", file=sys.stderr)
        return 2
    began = time.perf_counter()
    found = run(guard, options.chunkings, seed, options.jobs, options.policy)
    seconds = time.perf_counter() - began
    result = {
        "leaks": found.leaks,
        "chunkings": found.chunkings,
        "pieces": found.pieces,
        "detectors": [one.name for one in guard.panel.detectors("output")],
        "policy_version": guard.policy_version,
        "planted": dict(sorted(found.planted.items())),
        "unseen": dict(sorted(found.unseen.items())),
        "examples": found.examples,
        "seed": seed,
        "seconds": round(seconds, 1),
    }
    if options.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        print(
            f"{found.leaks} leaks in {found.chunkings} chunkings ({found.pieces} pieces), {seconds:.0f} s, seed {seed}"
        )
        print(f"unseen in the whole answer: {dict(found.unseen) or 'none'}")
        for example in found.examples:
            print(json.dumps(example, ensure_ascii=False))
    return 1 if found.leaks else 0


def with_terms(policy: Policy) -> Policy:
    """Return `policy` with the terms that are planted, after its own detectors."""
    table = policy.file.model_dump(mode="json", exclude_none=True)
    lists = [{"category": category, "label": "term", "terms": list(terms)} for category, terms in TERMS.items()]
    table["detectors"] = [*table["detectors"], {"name": "terms", "settings": {"lists": lists}}]
    return make_policy(table, where=policy.where, folder=policy.folder)


def run(guard: RaiseGuard, chunkings: int, seed: int, jobs: int = 1, policy: Path | None = None) -> Leaks:
    """Stream random answers until so many cuttings were tried, with several jobs in processes that load `policy`."""
    blocks = [(min(_BLOCK, chunkings - done), f"{seed} {done}") for done in range(0, chunkings, _BLOCK)]
    result = Leaks()
    if jobs == 1:
        for block in blocks:
            result.add(_run_block(guard, *block))
        return result
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_load, initargs=(policy,)) as pool:
        for found in pool.map(_run_loaded, blocks):
            result.add(found)
    return result


_loaded: list[RaiseGuard] = []  # the guard of this process, if it is one of several


def _load(policy: Path | None) -> None:
    _loaded.append(_guard(policy))


def _run_loaded(block: tuple[int, str]) -> Leaks:
    return _run_block(_loaded[0], *block)


def _guard(policy: Path | None) -> RaiseGuard:
    loaded = with_terms(load_policy()) if policy is None else load_policy(policy)
    return RaiseGuard(loaded, Registry.discover(), recorded=False)


def _run_block(guard: RaiseGuard, chunkings: int, seed: str) -> Leaks:
    draw = random.Random(seed)
    names = {entry.name for entry in guard.policy.detectors}
    result = Leaks()
    while result.chunkings < chunkings:
        answer = draw_answer(draw, secrets="secrets" in names)
        whole = guard.judge_output([], answer.text)
        secret = _may_not_be_read(answer, whole.text, result)
        for _ in range(min(_PER_ANSWER, chunkings - result.chunkings)):
            pieces = draw_pieces(draw, answer.text)
            result.chunkings += 1
            if told := _leak(guard, pieces, whole.text, secret, result):
                result.leaks += 1
                if len(result.examples) < _SHOWN:
                    result.examples.append({"why": told, "pieces": pieces, "judged_at_once": whole.text})
    return result


def _may_not_be_read(answer: Answer, judged: str, result: Leaks) -> list[str]:
    """Return the traces of what must not be delivered, and count what the guard does not see at all."""
    secret, readable = [], set()
    for one in answer.planted:
        kind, trace = f"{one.kind}, {one.disguise}", traces(one.shown)
        result.planted[kind] += 1
        if one.disguise != "plain" and trace in traces(judged):
            result.unseen[kind] += 1
            readable.add(trace)
        else:
            secret.append(trace)
    return [trace for trace in secret if trace not in readable]  # a value may be planted twice, once unseen


def _leak(guard: RaiseGuard, pieces: list[str], judged: str, secret: list[str], result: Leaks) -> str:
    """Stream one cutting; return how it leaked, or nothing."""
    stream = guard.open_output([])
    delivered = ""
    for piece in [*pieces, None]:
        chunk = stream.finish() if piece is None else stream.feed(piece)
        result.pieces += 1
        delivered += chunk.text
        if not judged.startswith(delivered):
            return f"delivered {delivered!r}"
        if chunk.stop:
            break
    if delivered != judged:
        return f"delivered {delivered!r} in all"
    read = traces(delivered)
    return next((f"{one!r} can be read" for one in secret if one in read), "")


if __name__ == "__main__":
    sys.exit(main())
