"""From rounds to cells: medians, ratios within rounds, shares of the bandwidth, agreement; and the table of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from inference.measurement import Cell, Measured

OURS = "fulmen"
_WEIGHTS = {"bf16": "bf16", "int8": "int8", "q8_0": "q8_0", "float32": "float32"}


def cells(measured: Measured, precision: str | None) -> list[dict[str, Any]]:
    """Two cells (prefill, decode) for each batch and prompt: Fulmen's fastest precision against the fastest peer's.

    With `precision`, only contenders in that one are compared. Where Fulmen was not measured, its own figures are None.
    """
    order = list(dict.fromkeys(cell for cell, _ in measured.figures))
    return [_cell(measured, cell, phase, precision) for cell in order for phase in ("prefill", "decode")]


def _cell(measured: Measured, cell: Cell, phase: str, precision: str | None) -> dict[str, Any]:
    rates = {
        label: [_rate(one, cell, phase) for one in rounds]
        for (of, label), rounds in measured.figures.items()
        if of == cell and (precision is None or label.rpartition("-")[2] == precision)
    }
    ours = _fastest({label: rate for label, rate in rates.items() if label.startswith(OURS)})
    peers = {label: rate for label, rate in rates.items() if not label.startswith(OURS)}
    best = _fastest(peers)
    row: dict[str, Any] = {
        "shape": measured.shape.name,
        "batch": cell.batch,
        "prompt": cell.prompt,
        "phase": phase,
        "engine": ours,
        "precision": ours and ours.rpartition("-")[2],
        "tokens_per_s": median(rates[ours]) if ours else None,
        "best_peer": best,
        "best_peer_tokens_per_s": median(rates[best]) if best else None,
        "ratio_vs_best_peer": _ratio(rates[ours], rates[best]) if ours and best else None,
        "share_of_bandwidth": _share(measured, cell, phase, ours, rates) if ours else None,
        "ttft_ms": None,
        "kv_bytes": None,
        "peak_memory_bytes": None,
        "rounds": max(map(len, rates.values()), default=0),
        "engines": {label: _engine(measured, cell, phase, label, rates) for label in rates},
    }
    if ours:
        row |= {key: row["engines"][ours][key] for key in ("ttft_ms", "kv_bytes", "peak_memory_bytes")}
    row["like_for_like"] = _like_for_like(rates)
    row["greedy_agreement"] = agreement(measured, cell)
    return row


def _engine(measured: Measured, cell: Cell, phase: str, label: str, rates: Mapping[str, list[float]]) -> dict[str, Any]:
    rounds = measured.figures[cell, label]
    return {
        "tokens_per_s": median(rates[label]),
        "tokens_per_s_rounds": rates[label],
        "share_of_bandwidth": _share(measured, cell, phase, label, rates),
        "ttft_ms": 1000 * median(one["prefill_s"] for one in rounds),
        "kv_bytes": rounds[-1].get("kv_bytes"),
        "peak_memory_bytes": max((one["peak_memory_bytes"] or 0 for one in rounds), default=0) or None,
    }


def _rate(figure: Mapping[str, Any], cell: Cell, phase: str) -> float:
    """Tokens a second, over the whole batch."""
    if phase == "prefill":
        return float(cell.batch * cell.prompt / figure["prefill_s"])
    return float(figure["decode_tokens"] / figure["decode_s"])


def _fastest(rates: Mapping[str, list[float]]) -> str | None:
    return max(rates, key=lambda label: median(rates[label]), default=None)


def _ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """The median of the ratios within rounds; a contender that missed a round is compared in those it took part in."""
    return median(a / b for a, b in zip(ours, theirs, strict=False))


def _like_for_like(rates: Mapping[str, list[float]]) -> dict[str, Any] | None:
    """Fulmen in bf16 against the fastest peer in bf16."""
    own = f"{OURS}-bf16"
    peers = {label: rate for label, rate in rates.items() if label.endswith("-bf16") and label != own}
    best = _fastest(peers)
    if own not in rates or best is None:
        return None
    return {"precision": "bf16", "best_peer": best, "ratio_vs_best_peer": _ratio(rates[own], rates[best])}


def _share(measured: Measured, cell: Cell, phase: str, label: str, rates: Mapping[str, list[float]]) -> float:
    """The bytes that the phase cannot avoid reading, by its measured time, over the measured bandwidth.

    Decode: active weights and KV of each step. Prefill: the weights once, however many chunks read them: prefill is
    bound by products, and this says how far from memory it is.
    """
    shape = measured.shape
    weights = _WEIGHTS[label.rpartition("-")[2]]
    rate = median(rates[label])
    if phase == "prefill":
        needed = shape.prefill_bytes(cell.batch, cell.prompt, weights)
        passes = rate / (cell.batch * cell.prompt)
    else:
        element = measured.details[label].get("kv_element_bytes", 2)
        needed = shape.decode_bytes(cell.batch, cell.prompt, weights, element)
        passes = rate / cell.batch
    return needed * passes / median(measured.bandwidths)


def agreement(measured: Measured, cell: Cell) -> dict[str, int]:
    """For each label: how many first greedy tokens of the first prompt equal the reference's before they part.

    The reference is transformers in bf16 where it was measured, else the first contender. Random weights have flat
    logits: in 8 bits the ways part early, and that is no error.
    """
    first = {label: rounds[0]["tokens"][0] for (of, label), rounds in measured.figures.items() if of == cell}
    if not first:
        return {}
    reference = first.get("transformers-bf16", next(iter(first.values())))
    return {label: _common(tokens, reference) for label, tokens in first.items()}


def _common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The cells as text: a line for each, then each engine's rate."""
    rows = list(rows)
    labels = list(dict.fromkeys(label for row in rows for label in row["engines"]))
    head = ["shape", "batch", "prompt", "phase", *labels, "best peer", "ratio", "bandwidth", "same tokens"]
    lines = [head]
    for row in rows:
        rates = [row["engines"].get(label, {}).get("tokens_per_s") for label in labels]
        line = [row["shape"], str(row["batch"]), str(row["prompt"]), row["phase"]]
        line += ["-" if rate is None else f"{rate:,.1f}" if rate < 1000 else f"{rate:,.0f}" for rate in rates]
        line += [row["best_peer"] or "-", _number(row["ratio_vs_best_peer"], "{:.2f}")]
        line += [_number(row["share_of_bandwidth"], "{:.0%}"), " ".join(map(str, row["greedy_agreement"].values()))]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
