"""What the detectors of a panel remember of one stream: a reader for each detector and view that it was shown in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from fulmen_safety.detector import Follower, IncrementalDetector
from fulmen_safety.normalise import View


class Followed:
    """The readers of one detector. Used by whoever runs the detector, who may be left behind if that hangs.

    Args:
        least: score below which its findings are not wanted.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._readers: dict[str, Follower] = {}
        self._dropped: dict[str, int] = {}

    def reader(self, view: str, detector: IncrementalDetector) -> tuple[Follower, int]:
        """Return what reads a view, and how many characters left its start since it was read last."""
        reader = self._readers.get(view)
        if reader is None:
            reader = self._readers[view] = detector.follow(self._least)
            return reader, 0
        return reader, self._dropped.pop(view, 0) if self._dropped else 0

    def drop(self, view: str, count: int) -> None:
        """So many characters leave the start of a view."""
        if view in self._readers:
            self._dropped[view] = self._dropped.get(view, 0) + count

    def keep(self, views: Collection[str]) -> None:
        """Forget the readers of all other views."""
        if len(self._readers) > len(views):
            self._readers = {name: reader for name, reader in self._readers.items() if name in views}


class Following:
    """The readers of all detectors, by the detector's name in the policy.

    Args:
        least_scores: of each detector, the score below which its findings are not wanted.
    """

    def __init__(self, least_scores: Mapping[str, float]) -> None:
        self._least_scores = least_scores
        self._followed: dict[str, Followed] = {}

    def of(self, detector: str) -> Followed:
        """Return those of one detector."""
        followed = self._followed.get(detector)
        if followed is None:
            followed = self._followed[detector] = Followed(self._least_scores[detector])
        return followed

    def drop(self, shown: Iterable[View], raw: int) -> None:
        """The first `raw` characters of a raw text leave, and what views show of them."""
        followed = list(self._followed.values())
        for view in shown:
            count = view.index_from(raw)
            for one in followed:
                one.drop(view.name, count)
