"""The report's plots, as SVG text that takes its ink from the page, so that they read in light and dark.

Each function takes plain numbers and returns one `<svg>` element.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

#: A colour that no plot uses otherwise; it becomes the page's text colour.
_INK = "#010203"
_SERIES = ("#3b7dd8", "#d8793b", "#3ba272", "#a259c4", "#c23b5a")

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

#: Stage boundaries: the name of a stage and the x at which it begins.
Boundaries = Sequence[tuple[str, float]]


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Title": title})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def _mark_stages(axes: Axes, boundaries: Boundaries) -> None:
    for name, start in boundaries:
        axes.axvline(start, color=_INK, alpha=0.25, linewidth=0.8, linestyle=":")
        axes.text(start, 1.0, f" {name}", transform=axes.get_xaxis_transform(), va="bottom", fontsize=8)


def curves(
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    boundaries: Boundaries = (),
    level: tuple[str, float] | None = None,
) -> str:
    """Lines of y over x, one for each named series; `level` draws a dashed reference."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.0))
        axes = figure.add_subplot()
        axes.set_prop_cycle(color=_SERIES)
        for name, (x, y) in series.items():
            axes.plot(x, y, linewidth=1.4, label=name, marker="o" if len(x) < 12 else None, markersize=3)
        if level is not None:
            axes.axhline(level[1], color=_INK, alpha=0.6, linewidth=1, linestyle="--", label=level[0])
        _mark_stages(axes, boundaries)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(series) > 1 or level is not None:
            axes.legend()
        return _svg(figure, title)


def expert_load(load_LE: NDArray[np.float64]) -> str:
    """A heat map of the share of tokens each expert of each layer took; 1.0 is a perfectly even share."""
    with mpl.rc_context(_STYLE | {"axes.grid": False}):
        layers, experts = load_LE.shape
        figure = Figure(figsize=(6.4, 0.6 + 0.32 * layers))
        axes = figure.add_subplot()
        axes.set_prop_cycle(color=_SERIES)
        image = axes.imshow(load_LE * experts, aspect="auto", cmap="viridis", vmin=0.0, vmax=2.0)
        axes.set_xlabel("expert")
        axes.set_ylabel("layer")
        axes.set_yticks(range(layers))
        figure.colorbar(image, ax=axes, label="load / even load")
        return _svg(figure, "Expert load")


def kv_memory(contexts: Sequence[int], series: Mapping[str, Sequence[float]]) -> str:
    """Bytes of KV cache over context length, both axes logarithmic."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.0))
        axes = figure.add_subplot()
        axes.set_prop_cycle(color=_SERIES)
        for name, gigabytes in series.items():
            axes.plot(contexts, gigabytes, linewidth=1.6, label=name, marker="o", markersize=3)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(contexts, [f"{context // 1024}K" for context in contexts])
        axes.minorticks_off()
        axes.set_xlabel("context, tokens")
        axes.set_ylabel("KV cache of one sequence, GB")
        axes.legend()
        return _svg(figure, "KV memory over context")


def bars(title: str, y_label: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Grouped bars: outer keys on the x axis, inner keys as series."""
    with mpl.rc_context(_STYLE):
        names = list(groups)
        series = list(next(iter(groups.values())))
        width = 0.8 / len(series)
        figure = Figure(figsize=(6.4, 2.8))
        axes = figure.add_subplot()
        axes.set_prop_cycle(color=_SERIES)
        for index, name in enumerate(series):
            x = np.arange(len(names)) + (index - (len(series) - 1) / 2) * width
            axes.bar(x, [groups[group][name] for group in names], width * 0.92, label=name)
        axes.set_xticks(range(len(names)), names)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(y_label)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _svg(figure, title)
