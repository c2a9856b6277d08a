"""Scores of an answer in [0, 1] by rule: equal to the reference, or by the scorer of the reasoning-gym task."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from fulmen_core.errors import UserError


def exact(answer: str, item: Mapping[str, object]) -> float:
    """1.0 if the answer equals ``item["answer"]`` but for white space at the ends, else 0.0.

    Raises:
        UserError: the item has no reference answer.
    """
    return float(answer.strip() == _reference(item).strip())


def final(answer: str, item: Mapping[str, object]) -> float:
    """1.0 if the answer's last word, without a full stop, equals ``item["answer"]``, else 0.0; steps may come first.

    Raises:
        UserError: the item has no reference answer.
    """
    words = answer.split()
    return float(bool(words) and words[-1].rstrip(".") == _reference(item).strip())


def reasoning_gym(answer: str, item: Mapping[str, object]) -> float:
    """The score of the reasoning-gym task named in ``item["metadata"]["source_dataset"]``; some give partial credit.

    An answer that the scorer cannot read scores 0.

    Raises:
        UserError: the item does not come from reasoning-gym, its own answer cannot be scored, or the package is
            missing.
    """
    metadata = item.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("source_dataset"), str):
        raise UserError(
            "the item has no metadata.source_dataset", where="verifier reasoning-gym", remedy="use the verifier exact"
        )
    score = import_reasoning_gym().get_score_answer_fn(metadata["source_dataset"])
    entry = {"question": "", "answer": _reference(item), "metadata": metadata}
    try:
        return float(score(answer.strip(), entry))
    except Exception:  # some scorers raise on an answer that they cannot parse
        _check_scorer(score, entry, metadata["source_dataset"])
        return 0.0


def _check_scorer(score: Callable[[str, Mapping[str, Any]], float], entry: Mapping[str, Any], name: str) -> None:
    """Tell an unreadable answer from a broken item: the reference must be scored without a fault."""
    try:
        score(entry["answer"], entry)
    except Exception as error:
        raise UserError(
            f"the scorer of {name} raises {type(error).__name__} on the item's own answer",
            where="verifier reasoning-gym",
            remedy="make the items again with the installed reasoning-gym",
        ) from error


def import_reasoning_gym() -> Any:
    """Import reasoning-gym, late because it takes seconds (it brings matplotlib and sympy).

    Raises:
        UserError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Its dependency cellpylib compares with `is`; what Python says of that when it compiles it helps no user.
            warnings.simplefilter("ignore", SyntaxWarning)
            import reasoning_gym as gym
    except ImportError as error:
        raise UserError(
            f"reasoning-gym cannot be imported ({error})", remedy="pip install 'fulmen-trainer[tasks]'"
        ) from None
    return gym


def _reference(item: Mapping[str, object]) -> str:
    reference = item.get("answer")
    if not isinstance(reference, str):
        raise UserError("the item has no answer to compare with", where="verifier", remedy='give it an "answer"')
    return reference
