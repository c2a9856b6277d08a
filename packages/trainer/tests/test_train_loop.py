"""The training loop resumes, keeps two checkpoints, stops politely, and says what went wrong."""

from __future__ import annotations

import io
import os
import signal
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from fulmen_core.descriptors import TrackerInfo
from fulmen_core.errors import CorruptArtefact, UserError
from fulmen_core.hooks import hookimpl
from fulmen_core.registry import Registry
from fulmen_trainer.display import LineDisplay
from fulmen_trainer.loop import checkpoints, run_loop
from fulmen_trainer.optimizers import OptimizerConfig, build_optimizer
from fulmen_trainer.trackers import read_metrics
from fulmen_trainer.training_state import load_training_state, save_training_state


class Regression:
    """A linear model on data that is a function of the step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1, bias=False)
        self.optimizer = build_optimizer(self.model, OptimizerConfig(lr=0.05))
        self.seen: list[int] = []

    def train_step(self, step: int) -> dict[str, float]:
        self.seen.append(step)
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = (self.model(x) - x.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        norm = self.optimizer.step(1.0)
        return {"loss": loss.item(), "grad_norm": norm, "tokens": 16.0}

    def save(self, directory: Path) -> None:
        save_training_state(directory, self.model, self.optimizer)

    def load(self, directory: Path) -> None:
        load_training_state(directory, self.model, self.optimizer)


class StopsAt(Regression):
    """Sends itself a signal in the middle of a step."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__()
        self.at, self.number = at, number

    def train_step(self, step: int) -> dict[str, float]:
        if step == self.at:
            os.kill(os.getpid(), self.number)
        return super().train_step(step)


class DivergesAt(Regression):
    def __init__(self, at: int, value: float) -> None:
        super().__init__()
        self.at, self.value = at, value

    def train_step(self, step: int) -> dict[str, float]:
        metrics = super().train_step(step)
        return {**metrics, "loss": self.value} if step == self.at else metrics


def loop(module: Any, work: Path, registry: Registry | None = None, **changes: Any) -> list[dict[str, float]]:
    settings: dict[str, Any] = {"total_steps": 20, "checkpoint_every": 4, "log_every": 3, **changes}
    display = settings.pop("display", LineDisplay(io.StringIO()))
    return run_loop(module, stage="toy", work=work, registry=registry or Registry.of(), display=display, **settings)


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "tokens_per_second")} for record in history]


def test_records_are_means_over_their_interval_and_tokens_are_summed(work: Path) -> None:
    alone = Regression()
    losses = [alone.train_step(step)["loss"] for step in range(20)]
    history = loop(Regression(), work)
    assert [record["step"] for record in history] == [3, 6, 9, 12, 15, 18, 20]
    assert history[1]["loss"] == pytest.approx(sum(losses[3:6]) / 3)
    assert [record["tokens"] for record in history] == [48.0] * 6 + [32.0]
    assert read_metrics(work / "metrics.jsonl") == history


def test_the_last_two_checkpoints_stay(work: Path) -> None:
    loop(Regression(), work)
    assert [path.name for path in checkpoints(work)] == ["step-00000016", "step-00000020"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("at", [0, 7, 8])
def test_a_signal_checkpoints_the_step_and_the_next_run_goes_on_as_if_nothing_had_been(
    work: Path, tmp_path: Path, number: int, at: int
) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        loop(StopsAt(at, number), work)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert checkpoints(work)[-1].name == f"step-{at + 1:08d}"

    resumed, whole = Regression(), Regression()
    history = loop(resumed, work)
    assert resumed.seen == list(range(at + 1, 20))
    assert without_times(history) == without_times(loop(whole, tmp_path / "whole"))
    assert torch.equal(resumed.model.weight, whole.model.weight)


def test_records_after_the_newest_checkpoint_are_dropped_and_made_again(work: Path) -> None:
    class Killed(Exception):
        pass

    class Dies(Regression):
        def train_step(self, step: int) -> dict[str, float]:
            if step == 10:
                raise Killed
            return super().train_step(step)

    with pytest.raises(Killed):
        loop(Dies(), work)
    with (work / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')  # a write that a kill cut short
    assert [record["step"] for record in read_metrics(work / "metrics.jsonl")] == [3, 6, 9]
    resumed = Regression()
    history = loop(resumed, work)
    assert resumed.seen[0] == 8
    assert [record["step"] for record in history] == [3, 6, 9, 12, 15, 18, 20]


def test_a_finished_run_is_not_run_again(work: Path) -> None:
    history = loop(Regression(), work)
    again = Regression()
    assert loop(again, work) == history
    assert again.seen == []


def test_fewer_steps_than_are_done_already_are_refused(work: Path) -> None:
    loop(Regression(), work)
    with pytest.raises(UserError, match="past the 10 steps asked for"):
        loop(Regression(), work, total_steps=10)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_in_one_sentence(work: Path, value: float) -> None:
    with pytest.raises(UserError, match=r"loss became (nan|inf) at step 7 in stage 'toy': lower the learning rate"):
        loop(DivergesAt(6, value), work)
    assert checkpoints(work)[-1].name == "step-00000004"


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(work: Path) -> None:
    loop(Regression(), work)
    damaged = checkpoints(work)[-1] / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    resumed, said = Regression(), io.StringIO()
    loop(resumed, work, display=LineDisplay(said))
    assert resumed.seen == [16, 17, 18, 19]
    assert "step-00000020 is unusable" in said.getvalue()


def test_without_a_sound_checkpoint_the_run_stops_rather_than_starting_over(work: Path) -> None:
    loop(Regression(), work)
    for path in checkpoints(work):
        (path / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(CorruptArtefact, match="no checkpoint can be read"):
        loop(Regression(), work)


def test_what_a_killed_process_left_while_writing_is_cleared(work: Path) -> None:
    leftover = work / "checkpoints" / ".step-00000004.123.abcd.tmp"
    leftover.mkdir(parents=True)
    module = Regression()
    loop(module, work)
    assert module.seen[0] == 0
    assert not leftover.exists()


class Recorder(ModuleType):
    """A plugin that hears everything, and a tracker."""

    def __init__(self) -> None:
        super().__init__("recorder")
        events: list[tuple[Any, ...]] = []
        self.events = events
        self.logged: list[int] = []
        self.closed: list[bool] = []

        @hookimpl
        def fulmen_stage_start(run: Path, stage: str) -> None:
            events.append(("start", stage))

        @hookimpl
        def fulmen_step_end(run: Path, stage: str, step: int, metrics: dict[str, float]) -> None:
            events.append(("step", step, sorted(metrics)))

        @hookimpl
        def fulmen_checkpoint_saved(run: Path, stage: str, path: Path) -> None:
            events.append(("checkpoint", path.name, (path / "loop.json").is_file()))

        @hookimpl
        def fulmen_trackers() -> list[TrackerInfo]:
            return [TrackerInfo("memory", "keeps what it is told", lambda run, stage: self)]

        self.fulmen_stage_start, self.fulmen_step_end = fulmen_stage_start, fulmen_step_end
        self.fulmen_checkpoint_saved, self.fulmen_trackers = fulmen_checkpoint_saved, fulmen_trackers

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.logged.append(step)

    def close(self) -> None:
        self.closed.append(True)


def test_plugins_hear_of_stage_intervals_and_whole_checkpoints_and_named_trackers_are_fed(work: Path) -> None:
    recorder = Recorder()
    loop(Regression(), work, Registry.of(recorder), total_steps=4, trackers=("memory",))
    measured = ["grad_norm", "loss", "seconds", "tokens", "tokens_per_second"]
    assert recorder.events == [
        ("start", "toy"),
        ("step", 3, measured),
        ("step", 4, measured),
        ("checkpoint", "step-00000004", True),
    ]
    assert (recorder.logged, recorder.closed) == ([3, 4], [True])


def test_outside_the_main_thread_the_loop_leaves_signals_alone(work: Path) -> None:
    histories: list[list[dict[str, float]]] = []
    thread = threading.Thread(target=lambda: histories.append(loop(Regression(), work)))
    thread.start()
    thread.join()
    assert histories[0][-1]["step"] == 20
