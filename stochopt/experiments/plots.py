"""The one style sheet of every picture: colours, axes, bands, labels at the ends of lines."""

import itertools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    import matplotlib
    from matplotlib import pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("Pictures need matplotlib: pip install 'stochopt[experiments]'.") from error

from stochopt.experiments.evidence import ClaimResult
from stochopt.experiments.race import RaceResult
from stochopt.experiments.rates import RateResult
from stochopt.experiments.report import label, quartiles
from stochopt.experiments.result import RunResult
from stochopt.experiments.table import words

# Okabe and Ito's colours, distinguishable with every common colour vision; grey for the yardstick.
_PALETTE = {
    "vermillion": "#D55E00",
    "blue": "#0072B2",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "grey": "#7A7A7A",
}
_COLORS = {
    "adago": "vermillion",
    "muon": "purple",
    "trust_region": "green",
    "smb": "blue",
    "smb_independent": "sky",
    "scsc": "green",
    "adam": "grey",
    "contrib.muon": "purple",
    "sgd": "orange",
}
_SOLVED = 1e-8  # of the starting value: what is below, zero included, is drawn there
_LINE_OF_TEXT = 0.065  # height of a name, as a fraction of the axis
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)))

#: Settings of matplotlib for every picture.
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.7,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",  # a white card reads on a light and on a dark page
    "savefig.dpi": 150,
    "svg.hashsalt": "stochopt",
    "lines.linewidth": 2.2,
}


def color(method: str) -> str:
    """The method's own colour: fixed for known methods, a stable choice for any other name."""
    names = list(_PALETTE)
    return _PALETTE[_COLORS.get(method) or names[zlib.crc32(method.encode()) % len(names)]]


def _styles(methods: Sequence[str]) -> list[dict[str, Any]]:
    """Colour per method; methods that share a colour in this picture differ in their dashes."""
    used: dict[str, int] = {}
    styles = []
    for method in methods:
        chosen = color(method)
        dashes = _DASHES[used.get(chosen, 0) % len(_DASHES)]
        used[chosen] = used.get(chosen, 0) + 1
        styles.append({"color": chosen, "linestyle": dashes})
    return styles


def race_figure(race: RaceResult) -> Figure:
    """Objective against updates and against gradient evaluations, one line per method.

    Median over seeds with the band between the quartiles. With a sweep each method stands at its
    best setting.
    """
    results = race.best()
    panels: list[tuple[str, Callable[[RunResult], np.ndarray]]] = [
        ("updates", lambda result: result.steps),
        ("gradient evaluations", lambda result: np.median(result.num_gradients, axis=0)),
    ]
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
        for ax, (head, x_of) in zip(axes, panels, strict=True):
            floor = _SOLVED * np.median([result.values[:, 0] for result in results])
            curves = [
                (x_of(result), *(np.maximum(q, floor) for q in quartiles(result.values)))
                for result in results
            ]
            for result, style, (x, low, middle, high) in zip(
                results, _styles([r.method for r in results]), curves, strict=True
            ):
                ax.plot(x, middle, label=label(result.method, result.hyperparams), **style)
                ax.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
            _rate_axes(ax, curves)
            _guides(ax, race)
            ax.set_xlabel(head)
        axes[0].set_ylabel(words(race.problem.objective))
        _name_lines(axes)
        seeds = max(result.num_seeds for result in results)
        title = f"{race.problem.summary}: median and quartiles over {seeds} seeds"
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def sweep_figure(race: RaceResult) -> Figure:
    """Final objective against the swept hyper-parameter, one line per method."""
    assert race.sweep is not None
    by_method = race.by_method()
    ceiling = np.median([result.values[:, 0] for result in race.results])
    with matplotlib.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
        for (method, results), style in zip(
            by_method.items(), _styles(list(by_method)), strict=True
        ):
            low, middle, high = quartiles(np.stack([r.final() for r in results], axis=1))
            if race.sweep.name in results[0].hyperparams:
                x = [result.hyperparams[race.sweep.name] for result in results]
            else:  # does not have this hyper-parameter: a level across the picture
                x = [min(race.sweep.values), max(race.sweep.values)]
                low, middle, high = (np.repeat(q, 2) for q in (low, middle, high))
            # What ended above the start, or not finite, is drawn at the upper rim.
            low, middle, high = (
                np.clip(q, _SOLVED * ceiling, 3 * ceiling) for q in (low, middle, high)
            )
            ax.plot(x, middle, label=method, marker="o", markersize=5, **style)
            ax.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(top=3.3 * ceiling)
        ax.set_xlabel(words(race.sweep.name))
        ax.set_ylabel(f"{words(race.problem.objective)} after {race.num_steps} updates")
        _guides(ax, race)
        _name_lines([ax])
        seeds = max(result.num_seeds for result in race.results)
        ax.set_title(f"{race.problem.summary}\nmedian and quartiles over {seeds} seeds")
    return figure


def rates_figure(results: Sequence[RateResult | ClaimResult]) -> Figure:
    """Error against gradient evaluations on a ladder of horizons, one panel per result.

    Mean over seeds with the band between the quartiles; filled points are those of the fit. The
    predicted slope is drawn beside them, and the control of a claim as a thin line.
    """
    columns = min(2, len(results))
    rows = -(-len(results) // columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(5.5 * columns, 4.2 * rows), layout="constrained", squeeze=False
        )
        for ax, result in itertools.zip_longest(axes.flat, results):
            if result is None:
                ax.remove()
            else:
                _rate_panel(ax, result)
    return figure


def _rate_panel(ax: Axes, result: RateResult | ClaimResult) -> None:
    rate, wrong = (
        (result.result, result.control) if isinstance(result, ClaimResult) else (result, None)
    )
    tint = color(rate.name)
    low, _, high = quartiles(rate.errors)
    mean = rate.errors.mean(axis=0)
    ax.fill_between(rate.costs, low, high, color=tint, alpha=0.18, linewidth=0)
    ax.plot(rate.costs, mean, color=tint, marker="o", markerfacecolor="white", label=rate.name)
    title = f"{rate.name} on {rate.problem}: {words(rate.measure)}"
    if rate.over == "tail":
        title += ", last quarter"
    if rate.fit is not None:
        used = rate.fit.used
        ax.plot(rate.costs[used], mean[used], color=tint, marker="o", linestyle="none")
        title += f"\nmeasured {rate.fit.exponent:.2f} [{rate.fit.low:.2f}, {rate.fit.high:.2f}]"
    if rate.exponent is not None and len(mean):
        law = rate.costs**-rate.exponent
        guide = 1.4 * np.max(mean / law) * law  # beside the curve, above all of it
        ax.plot(rate.costs, guide, color="#444444", linewidth=1.2, linestyle=(0, (4, 2)))
        _note(ax, f"slope $-{rate.exponent:g}$", rate.costs[1], guide[1], "left")
    if wrong is not None and len(wrong.errors):
        ax.plot(wrong.costs, wrong.errors.mean(axis=0), color="#777777", linewidth=1.2)
        _note(ax, wrong.name, wrong.costs[-1], wrong.errors.mean(axis=0)[-1], "right")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("gradient evaluations")
    ax.set_title(title, fontsize=12)


def _note(ax: Axes, text: str, x: float, y: float, align: str) -> None:
    """A few words just above a point of a line, on a card that keeps other lines off them."""
    ax.annotate(
        text,
        (x, y),
        xytext=(0, 6),
        textcoords="offset points",
        ha=align,
        fontsize=10,
        color="#444444",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
    )


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes PNG and SVG and closes the figure; returns both paths."""
    paths = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    with matplotlib.rc_context(STYLE):
        for target in paths:
            figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)
    plt.close(figure)
    return paths


def _rate_axes(ax: Axes, curves: Sequence[tuple[np.ndarray, ...]]) -> None:
    """A logarithmic axis from the lowest quartile to above the start; explosions leave it."""
    ax.set_yscale("log")
    lows = np.concatenate([low for _, low, _, _ in curves])
    starts = np.array([middle[0] for _, _, middle, _ in curves])
    positive = lows[np.isfinite(lows) & (lows > 0)]
    if len(positive) and np.isfinite(starts).any():
        ax.set_ylim(0.8 * positive.min(), 3 * starts[np.isfinite(starts)].max())


def _guides(ax: Axes, race: RaceResult) -> None:
    levels = dict(race.problem.levels)
    if race.target is not None:
        levels["target"] = race.target
    for name, level in levels.items():
        ax.axhline(level, color="#444444", linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        ax.annotate(
            f"{name} {level:.2g}",
            (0.01, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=10,
            color="#444444",
            zorder=1,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )


def _name_lines(axes: Sequence[Axes]) -> None:
    """Names at the ends of at most six lines in the last panel; a legend beyond."""
    lines = [line for line in axes[-1].get_lines() if not str(line.get_label()).startswith("_")]
    if len(lines) > 6:
        axes[0].legend(fontsize=10, frameon=False)
        return
    ax = axes[-1]
    bottom, top = ax.get_ylim()
    ends = []
    for line in lines:
        x, y = (np.asarray(data, float) for data in line.get_data())
        shown = np.flatnonzero(np.isfinite(y) & (y <= top) & (y >= bottom))
        if len(shown):
            end = (x[shown[-1]], y[shown[-1]])
            height = np.log(end[1] / bottom) / np.log(top / bottom)  # as a fraction of the axis
            ends.append([height, end, line])
    ends.sort(key=lambda entry: entry[0])
    for _ in range(100):  # push neighbours apart until every name has a line of its own
        for lower, upper in itertools.pairwise(ends):
            overlap = _LINE_OF_TEXT - (upper[0] - lower[0])
            if overlap > 0:
                lower[0] -= overlap / 2
                upper[0] += overlap / 2
    ceiling = 1.0
    for entry in reversed(ends):  # and none above the panel
        entry[0] = min(entry[0], ceiling)
        ceiling = entry[0] - _LINE_OF_TEXT
    for height, end, line in ends:
        ax.annotate(
            str(line.get_label()),
            xy=end,
            xytext=(1.03, height),
            textcoords="axes fraction",
            color=line.get_color(),
            va="center",
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "alpha": 0.4, "lw": 0.8},
            annotation_clip=False,
        )
