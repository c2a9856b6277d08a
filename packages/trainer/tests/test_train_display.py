"""Progress is a live panel on a terminal and one line an interval elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from fulmen_trainer.display import LineDisplay, LiveDisplay, load_bar, open_display

METRICS = {
    "loss": 4.321,
    "lr": 1e-3,
    "tokens": 4096.0,
    "tokens_per_second": 5432.1,
    "expert_load/0/0": 2.0,
    "expert_load/0/1": 1.0,
    "expert_load/0/2": 0.0,
}


def test_elsewhere_an_interval_is_one_line_with_loss_rate_and_time_left() -> None:
    stream = io.StringIO()
    display = open_display(stream)
    assert isinstance(display, LineDisplay)
    display.start("pretrain", 100, 0)
    display.show(10, METRICS)
    display.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "pretrain: 100 steps"
    assert lines[1].startswith("pretrain: step 10/100 loss 4.321 lr 1.00e-03 tokens_per_second 5,432 eta 0:0")
    assert len(lines) == 2


def test_a_resumed_stage_says_where_it_goes_on() -> None:
    stream = io.StringIO()
    LineDisplay(stream).start("sft", 100, 40)
    assert stream.getvalue() == "sft: resuming at step 40 of 100\n"


def test_on_a_terminal_the_panel_shows_progress_measurements_and_expert_load() -> None:
    stream = io.StringIO()
    display = LiveDisplay(Console(file=stream, force_terminal=True, width=100))
    display.start("pretrain", 100, 0)
    display.show(10, METRICS)
    display.note("a checkpoint was passed over")
    display.close()
    display.close()
    shown = stream.getvalue()
    for text in ("pretrain", "10/100", "4.321", "5,432", "expert load", load_bar([2.0, 1.0, 0.0]), "passed over"):
        assert text in shown, text


def test_bars_are_relative_to_the_largest_load() -> None:
    assert load_bar([1.0, 0.5, 0.0]) == "█▅▁"
    assert load_bar([]) == ""
    assert load_bar([0.0, 0.0]) == ""
