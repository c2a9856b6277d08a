"""Faults: what a user can get wrong is told in one sentence, and nothing is lost or kept that should not be."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fulmen_core.errors import UserError
from fulmen_core.runner import EngineLimits, SequenceStep
from fulmen_testing.backend.bench import Bench, Model
from fulmen_testing.backend.trial import BackendTrial
from fulmen_testing.claims import Record
from fulmen_testing.models import HEAVY, LIGHTNING

#: Loads of a runner, of which the first few warm allocators and caches of libraries; and how often that is tried.
WARM, LOADS, ROUNDS = 5, 12, 3
#: What memory may grow by with each load: less is noise of the allocator. The weights are fifteen times that.
LEAK_BYTES = 96 * 1024


class FaultClaims(BackendTrial):
    """Loading refuses what is not whole; closing gives back what loading took."""

    def test_a_missing_folder_is_one_sentence(self, serving: Bench, tmp_path: Path) -> None:
        """A folder that is not there, or holds nothing, is one sentence that names it"""
        for folder in (tmp_path / "missing", tmp_path):
            with pytest.raises(UserError) as raised:
                serving.load(_at(folder))
            assert str(folder) in str(raised.value)
            assert "\n" not in str(raised.value)

    def test_damaged_files_are_named(self, serving: Bench, model: Model, tmp_path: Path) -> None:
        """A model of which any file that is needed is cut short or missing is refused; a whole one loads after it"""
        sentences: list[str] = []
        for file in sorted(path for path in model.served.rglob("*") if path.is_file()):
            name = file.relative_to(model.served)
            for damage in ("missing", "cut short"):
                folder = tmp_path / f"{damage}-{name}".replace("/", "-")
                shutil.copytree(model.served, folder)
                if damage == "missing":
                    (folder / name).unlink()
                else:
                    (folder / name).write_bytes(file.read_bytes()[: file.stat().st_size // 2])
                try:
                    serving.load(_at(folder)).close()
                except UserError as error:
                    sentences.append(str(error))
        assert [one for one in sentences if "\n" in one] == []
        assert len(sentences) >= 4, "config and weights can be cut short or be missing without a word"
        with serving.runner(model) as runner:
            assert np.isfinite(runner.step([SequenceStep(0, 0, [1, 2, 3])])).all()

    def test_closing_is_idempotent(self, serving: Bench, model: Model) -> None:
        """A runner may be closed twice, and another loads after it"""
        runner = serving.load(model)
        runner.close()
        runner.close()
        with serving.runner(model) as other:
            other.step([SequenceStep(0, 0, [1])])

    def test_two_runners_live_beside_one_another(self, serving: Bench, model: Model) -> None:
        """Two runners of one model keep their sequences apart"""
        steps = [SequenceStep(0, 0, [1, 2, 3, 4, 5]), SequenceStep(0, 5, [6])]
        with serving.runner(model) as one, serving.runner(model) as other:
            one.step(steps[:1])
            other.step([SequenceStep(0, 0, [9, 9, 9, 9, 9])])
            beside = one.step(steps[1:])
        with serving.runner(model) as alone:
            alone.step(steps[:1])
            np.testing.assert_allclose(beside, alone.step(steps[1:]), atol=1e-5)

    def test_loading_and_closing_leaks_nothing(self, serving: Bench, record_property: Record) -> None:
        """Memory after many runners that were loaded, stepped and closed is what it was after a few"""
        if not Path("/proc/self/statm").exists():
            pytest.skip("the system does not say how much memory the process has")
        model = serving.model("heavy", HEAVY)
        limits = EngineLimits(6, model.config.max_position_embeddings, 96)
        with serving.runner(model, limits) as runner:
            cache = runner.cache.bytes_per_sequence(limits.max_context, 4) * limits.slots

        def cycle() -> int:
            with serving.player(model, limits):
                pass  # it has used all slots and pages
            return _resident_bytes()

        for _ in range(ROUNDS):  # what an allocator scatters it scatters once; what leaks is lost in each of them
            grown = [cycle() for _ in range(LOADS)]
            each = (np.median(grown[-3:]) - np.median(grown[WARM - 3 : WARM])) / (LOADS - WARM)
            if each < LEAK_BYTES:
                break
        record_property("measured", f"{each / 1024:.0f} KiB for each load; caches of {cache / 1024:.0f} KiB")
        assert each < LEAK_BYTES


def _at(folder: Path) -> Model:
    return Model(str(folder), LIGHTNING, folder, folder)


def _resident_bytes() -> int:
    """What the process holds once all that is free went back to the system."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # the GNU C library's own
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
