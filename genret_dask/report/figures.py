"""Figures of laws: a metric against N, D and C, and joint laws against measurement."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from genret_dask.fits.fitting import Fit
from genret_dask.fits.points import LEVELS
from genret_dask.fits.series import groups_of
from genret_dask.report.drawing import (
    MUTED,
    PAPER,
    Drawing,
    Label,
    colour_of,
    corner_names,
    end_labels,
    log_axis,
    marker_of,
    name_axes,
    recall_axis,
    sheet,
)
from genret_dask.report.gather import Kind
from genret_dask.report.text import clean, decimal, estimate, short

AXES = {
    "n": "N, parameters but the input embedding",
    "d": "D, training pairs",
    "c": "C, FLOPs of a query",
}


@dataclass(frozen=True)
class Line:
    """A law as it is drawn: its colour is the family's, its strength tells models apart."""

    fit: Fit
    label: str
    place: int
    strength: float = 1.0
    published: bool = False

    @property
    def colour(self) -> str:
        return colour_of(self.place)

    @property
    def x(self) -> np.ndarray:
        return self.fit.points.x[:, 0]

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """The points' 95 % intervals; the points themselves where there is none."""
        draws = self.fit.points.draws
        if draws is None or not len(draws):
            return self.fit.points.y, self.fit.points.y
        low, high = np.quantile(draws, LEVELS, axis=0)
        return low, high

    @property
    def predicted(self) -> np.ndarray:
        """The law at the points."""
        return self.fit.law.predict(self.fit.points.x)[0]


def metrics_of(kind: Kind) -> dict[str, str]:
    """What laws are of, CGL and one minus the metric, and what an axis calls it."""
    return {"cgl": "CGL", f"1 - {kind.means.metric}": kind.means.metric}


def group_places(kind: Kind) -> dict[str, int]:
    """Give each family in each precision a place in the palette."""
    return {name: place for place, (name, _) in enumerate(groups_of(kind.means))}


def law_figures(kind: Kind, published: Sequence[Fit] = ()) -> Iterator[Drawing]:
    """Draw CGL and the metric against N, D and C, as far as the run varies them."""
    places = group_places(kind)
    for metric, word in metrics_of(kind).items():
        for axis in ("n", "d"):
            fits = kind.laws(f"L({axis.upper()})", metric)
            lines = [Line(fit, _label(fit, axis), places[_group(fit)]) for fit in fits]
            if axis == "n" and metric == "cgl":
                for fit in published:
                    family = fit.points.facts["family"]
                    place = places.get(family, len(places))
                    lines.append(Line(fit, f"MINDER {family}*", place, published=True))
            title = f"{word} against {axis.upper()}"
            yield from _law_figure(kind, lines, metric, axis, stem(metric), title)
    fits = kind.laws("L(C)", "cgl")
    lines = [Line(fit, _group(fit), places[_group(fit)]) for fit in fits]
    yield from _law_figure(kind, lines, "cgl", "c", "cgl", "CGL against C at the largest beam")
    rows = {str(name): row for row, name in enumerate(kind.means.model)}
    error = f"1 - {kind.means.metric}"
    by_model = [fit for fit in kind.laws("L(C)", error) if fit.points.series in rows]
    for group, place in places.items():
        mine = [fit for fit in by_model if _group(fit) == group]
        mine.sort(key=lambda fit: kind.means.n[rows[fit.points.series]])
        strengths = np.linspace(0.55, 1.0, len(mine)) if len(mine) > 1 else np.ones(1)
        lines = [
            Line(fit, fit.points.series, place, float(strength))
            for fit, strength in zip(mine, strengths, strict=False)
        ]
        title = f"{kind.means.metric} against C, over the beam sizes: {clean(group)}"
        yield from _law_figure(
            kind, lines, error, "c", f"{stem(error)}-{_slug(group, place)}", title
        )


def joint_figures(kind: Kind) -> Iterator[Drawing]:
    """Draw each point by the laws over several axes against what was measured."""
    places = group_places(kind)
    for metric, word in metrics_of(kind).items():
        fits = [
            fit
            for fit in kind.fits
            if len(fit.points.axes) > 1 and fit.points.metric == metric and fit.has_law
        ]
        if not fits:
            continue
        lines = [Line(fit, _group(fit), places[_group(fit)]) for fit in fits]
        names = " and ".join(dict.fromkeys(fit.points.law for fit in fits))
        title = f"{names}: {word} by the law against the measured one"
        low, high = _extent(lines, kind.queries, *(line.predicted for line in lines))
        with sheet() as (axes, found):
            axes.plot([low, high], [low, high], color=MUTED, linewidth=1)
            for line in lines:
                _points(axes, line, line.predicted.clip(low, high), low, high)
            scale = recall_axis if metric != "cgl" else _loss_axis
            log_axis(axes, "x", low, high)
            scale(axes, low, high)
            if metric != "cgl":
                axes.set_xlim(axes.get_ylim())
                axes.xaxis.set_major_locator(axes.yaxis.get_major_locator())
            axes.xaxis.set_major_formatter(axes.yaxis.get_major_formatter())
            name_axes(axes, f"{word} by the law", f"{word} measured")
            corner_names(axes, {line.label: line.colour for line in lines})
        alt = f"{sum(len(line.x) for line in lines)} points around the diagonal; " + "; ".join(
            f"{clean(line.label)} R² {decimal(line.fit.r2, 3)}" for line in lines
        )
        yield Drawing(
            f"{kind.name}-joint-{stem(metric)}",
            title,
            alt,
            tuple(law_note(line) for line in lines),
            found[0],
        )


def law_note(line: Line) -> str:
    """Put a law in words: exponents, asymptote, R2, n and intervals, or why there is none."""
    fit = line.fit
    name = clean(f"{line.label}, {fit.points.law}")
    if not fit.has_law:
        return f"{name}: no law ({fit.warnings[0] if fit.warnings else 'none fits'}), n = {fit.n}"
    exponents = ", ".join(
        f"exponent {axis.upper() + ' ' if len(fit.points.axes) > 1 else ''}{estimate(one.record())}"
        for axis, one in fit.exponents.items()
    )
    return (
        f"{name}: {exponents}, asymptote {estimate(fit.asymptote.record())}, "
        f"R² {decimal(fit.r2, 4)}, n = {fit.n}{warning_count(fit)}"
    )


def warning_count(fit: Fit) -> str:
    """Say how many warnings a law has, to be added to it."""
    count = len(fit.warnings)
    return f", {count} warning{'s' if count > 1 else ''}" if count else ""


def _law_figure(
    kind: Kind, lines: list[Line], metric: str, axis: str, stem: str, title: str
) -> Iterator[Drawing]:
    if not lines:
        return
    loss = metric == "cgl"
    low, high = _extent(lines, kind.queries)
    floors = [float(line.fit.law.asymptote[0]) for line in lines if line.fit.has_law]
    # An asymptote is shown where that does not press the points into half of the axis.
    low = min([low, *(floor for floor in floors if floor > low**2 / high)])
    x = np.concatenate([line.x for line in lines])
    with sheet([line.label for line in lines]) as (axes, found):
        log_axis(axes, "x", float(x.min()), float(x.max()))
        (_loss_axis if loss else recall_axis)(axes, low, high)
        span = axes.get_xlim()
        band = 0.14 if len(lines) < 5 else 0.05
        labels = [_draw(axes, line, span, low, high, band) for line in lines]
        name_axes(axes, AXES[axis], "CGL, lower is better" if loss else kind.means.metric)
        end_labels(axes, labels)
    models = sum(line.fit.n for line in lines)
    alt = f"{models} points of {len(lines)} series on logarithmic axes: " + "; ".join(
        _trend(line, loss) for line in lines[:12]
    )
    notes = [f"Means over {kind.queries:,} queries; bars and bands are 95 % intervals."]
    if any(line.fit.warnings and line.fit.has_law for line in lines):
        notes.append("Dashed: a law with something against it, see the table.")
    name = f"{kind.name}-{stem.lower()}-{axis}"
    yield Drawing(name, title, alt, (*notes, *map(law_note, lines)), found[0])


def _draw(
    axes: Axes, line: Line, span: tuple[float, float], low: float, high: float, band: float
) -> Label:
    """Band, asymptote, law, intervals and points of a series; its label."""
    fit = line.fit
    x, order = line.x, np.argsort(line.x, kind="stable")
    last = float(fit.points.y[order[-1]])
    if fit.has_law:
        grid = np.geomspace(x.min(), x.max(), 60)
        curve = fit.law.predict(grid[:, None])[0]
        draws = fit.predicted_draws(grid[:, None])
        if len(draws):
            below, above = np.quantile(draws, LEVELS, axis=0, method="nearest").clip(low, high)
            axes.fill_between(
                grid, below, above, color=line.colour, alpha=band * line.strength, linewidth=0
            )
        style: Any = "--" if fit.warnings or line.published else "-"
        axes.plot(
            grid,
            curve.clip(low, high),
            color=line.colour,
            alpha=line.strength,
            linestyle=style,
            linewidth=1.8,
        )
        floor = float(fit.law.asymptote[0])
        if low <= floor <= high:
            ends = [x.min(), span[1]]
            axes.plot(
                ends, [floor, floor], color=line.colour, linestyle=(0, (1, 2.5)), linewidth=1.2
            )
    _points(axes, line, x, low, high)
    return Label(line.label, min(max(last, low), high), line.colour)


def _points(axes: Axes, line: Line, x: np.ndarray, low: float, high: float) -> None:
    """Points and their intervals, moved to the ends of the axis where they lie beyond."""
    y = line.fit.points.y.clip(low, high)
    axes.errorbar(
        x,
        y,
        yerr=np.abs(np.stack(line.ends).clip(low, high) - y),
        fmt=marker_of(line.place),
        color=line.colour,
        markersize=5.5,
        markerfacecolor=PAPER if line.published else line.colour,
        markeredgecolor=line.colour if line.published else PAPER,
        markeredgewidth=1.2 if line.published else 0.6,
        elinewidth=1.1,
        alpha=line.strength,
        zorder=3,
    )


def _slug(name: str, place: int) -> str:
    """A name as a part of a file's; with its place, where it had to be changed."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return slug if slug == name.lower() else f"{slug}-{place}"


def stem(metric: str) -> str:
    """Name a metric in names of files: recall@10, and one minus it, are recall."""
    family = metric.removeprefix("1 - ").partition("@")[0].lower()
    return re.sub(r"[^a-z0-9_]+", "-", family)


def _loss_axis(axes: Axes, low: float, high: float) -> None:
    log_axis(axes, "y", low, high, pad=0.08)


def _extent(lines: Sequence[Line], queries: int, *more: np.ndarray) -> tuple[float, float]:
    """Ends of a logarithmic axis; values of 0 lie at its lower end."""
    values = np.concatenate(
        [*more, *(y for line in lines for y in (line.fit.points.y, *line.ends))]
    )
    there = values[np.isfinite(values) & (values > 0)]
    if not len(there):
        return 0.5 / queries, 1.0
    low, high = float(there.min()), float(there.max())
    if (values == 0).any():
        low = min(low / 2, max(0.5 / queries, 1e-3 * high))
    return (low, high) if high > 1.02 * low else (low / 1.05, high * 1.05)


def _trend(line: Line, loss: bool) -> str:
    order = np.argsort(line.x, kind="stable")
    y = line.fit.points.y if loss else (1 - line.fit.points.y).round(6)
    first, last = (
        f"{decimal(float(y[place]), 3)} at {short(float(line.x[place]))}"
        for place in order[[0, -1]]
    )
    return f"{clean(line.label)} from {first} to {last}"


def _label(fit: Fit, axis: str) -> str:
    if axis == "n":
        return _group(fit)
    size = fit.points.series.partition("N=")[2].partition(" ")[0].replace(",", "")
    number = float(size) if size else math.nan
    return f"{_group(fit)} {short(number)}"


def _group(fit: Fit) -> str:
    family, precision = fit.points.facts["family"], fit.points.facts["precision"]
    return family if precision == "fp32" else f"{family} {precision}"
