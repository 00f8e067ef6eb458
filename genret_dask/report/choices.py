"""Figures of comparisons and of the frontier."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from genret_dask.fits.series import groups_of
from genret_dask.report.drawing import (
    INK,
    MUTED,
    Drawing,
    Label,
    colour_of,
    corner_names,
    end_labels,
    linear_axis,
    log_axis,
    marker_of,
    name_axes,
    sheet,
)
from genret_dask.report.figures import AXES, group_places, stem
from genret_dask.report.gather import Kind
from genret_dask.report.text import clean, cut, decimal, estimate, short, upper_first

_MATCHED = {"n": AXES["n"], "d": AXES["d"], "flops": AXES["c"]}
_ROWS = 16


def family_figures(kind: Kind) -> Iterator[Drawing]:
    """Draw differences between families at matched N, D and FLOPs, with paired 95 % intervals."""
    for (metric, word), (by, axis) in itertools.product(
        _words(kind.means.metric), _MATCHED.items()
    ):
        pairs = _by_pair(kind.families, metric, by)
        if not pairs:
            continue
        records = [record for mine in pairs.values() for record in mine]
        x = [record["x"] for record in records]
        with sheet([_less(pair) for pair in pairs] if len(pairs) > 1 else ()) as (axes, found):
            log_axis(axes, "x", min(x), max(x))
            axes.axhline(0, color=INK, linewidth=1)
            labels = [
                _differences(axes, place, pair, mine)
                for place, (pair, mine) in enumerate(pairs.items())
            ]
            name_axes(axes, axis, f"difference in {word}")
            _linear(axes, "y", records)
            if len(pairs) > 1:
                end_labels(axes, labels)
            else:
                _sides(axes, *pairs, higher_is_first=metric != "cgl")
        yield Drawing(
            f"{kind.name}-families-{stem(metric)}-{by}",
            f"{word}: families at matched {by.upper() if by != 'flops' else 'FLOPs'}",
            _won(records),
            (
                f"Each point is a difference over the same {kind.queries:,} queries, "
                "with its paired 95 % interval; one that holds 0 has no better side.",
            ),
            found[0],
        )


def kind_figures(records: Sequence[Mapping[str, Any]], metric: str) -> Iterator[Drawing]:
    """Draw the differences between identifier kinds, model by model."""
    for one, word in _words(metric):
        for pair, mine in _by_pair(records, one, "identifiers").items():
            rows = mine[:_ROWS]
            names = [cut(record["model"], 18) for record in rows]
            with sheet(left=30 + int(6.8 * max(map(len, names)))) as (axes, found):
                axes.axvline(0, color=INK, linewidth=1)
                heights = np.arange(len(rows))[::-1].tolist()
                for height, record in zip(heights, rows, strict=True):
                    low, value, high = _ends(record["difference"])
                    axes.errorbar(
                        value, height, xerr=[[abs(value - low)], [abs(high - value)]], fmt="o",
                        color=colour_of(0), markersize=5, elinewidth=1.4,
                    )  # fmt: skip
                axes.set_ylim(-0.7, len(rows) - 0.3)
                axes.set_yticks(heights, names, fontsize=11)
                _linear(axes, "x", rows)
                beam = f" at beam {rows[0]['beam']}" if "beam" in rows[0] else ""
                name_axes(axes, f"{word}{beam}: {_less(pair)}", "")
            yield Drawing(
                f"kinds-{pair[0]}-{pair[1]}-{stem(one)}",
                f"{word}: {_less(pair)}, model by model",
                _won(rows),
                (
                    f"The same {rows[0]['queries']:,} queries on both sides, paired 95 % "
                    f"intervals; {'lower' if one == 'cgl' else 'higher'} is better.",
                ),
                found[0],
            )


def _words(metric: str) -> tuple[tuple[str, str], ...]:
    """The metrics that are compared, and what they are called."""
    return ("cgl", "CGL"), (metric, metric)


def frontier_figure(kind: Kind, baselines: Sequence[Mapping[str, Any]] = ()) -> Iterator[Drawing]:
    """Draw the metric against FLOPs of a query: all searches, and those that no other one beats.

    A baseline, which has no FLOPs, is a horizontal line.
    """
    means, choices, places = kind.means, kind.frontier, group_places(kind)
    if not choices:
        return
    value, word = 1 - means.error, means.metric.partition("@")[0]
    shown = np.isfinite(value) & np.isfinite(means.flops)
    group = {int(row): name for name, rows in groups_of(kind.means) for row in rows}
    with sheet() as (axes, found):
        log_axis(axes, "x", float(means.flops[shown].min()), float(means.flops[shown].max()))
        for row in range(len(means.model)):
            axes.plot(
                means.flops[row][shown[row]],
                value[row][shown[row]],
                marker=marker_of(places[group[row]]),
                color=colour_of(places[group[row]]),
                alpha=0.45,
                markersize=3.5,
                linewidth=0.8,
            )
        x = np.array([choice.flops for choice in choices])
        y = np.array([choice.recall.value for choice in choices])
        axes.step(x, y, where="post", color=INK, linewidth=1.6)
        low = np.array([choice.recall.low for choice in choices])
        high = np.array([choice.recall.high for choice in choices])
        bars = np.nan_to_num(np.abs(np.stack([y - low, high - y])))
        axes.errorbar(x, y, yerr=bars, fmt="o", color=INK, markersize=4.5, elinewidth=1, zorder=3)
        levels = {clean(one["model"]): one[means.metric]["mean"] for one in baselines}
        for level in levels.values():
            axes.axhline(level, color=MUTED, linewidth=1, linestyle="--")
        top = max(float(np.nanmax(value)), float(np.nan_to_num(high).max()), *levels.values())
        linear_axis(axes, "y", 0, min(1.02, 1.08 * top) if top > 0 else 1)
        name_axes(axes, AXES["c"], means.metric)
        colours = {name: colour_of(place) for name, place in places.items()}
        corner_names(axes, {**colours, "frontier": INK, **dict.fromkeys(levels, MUTED)})
    first, last = choices[0], choices[-1]
    alt = (
        f"{len(choices)} of {int(shown.sum())} searches are on the frontier, from "
        f"{clean(first.model)} at beam {first.beam} ({word} {decimal(first.recall.value, 3)} for "
        f"{short(first.flops)} FLOPs) to {clean(last.model)} at beam {last.beam} ({word} "
        f"{decimal(last.recall.value, 3)} for {short(last.flops)} FLOPs)"
    )
    note = (
        f"Means over {kind.queries:,} queries; bars are 95 % intervals. The {word} axis is linear."
    )
    notes = [note]
    if levels:
        lines = ", ".join(f"{name} {decimal(level, 3)}" for name, level in levels.items())
        notes.append(f"Dashed lines are baselines, whose cost is not counted: {lines}.")
    yield Drawing(
        f"{kind.name}-frontier",
        f"{upper_first(means.metric)} and what it costs",
        alt,
        tuple(notes),
        found[0],
    )


def _differences(
    axes: Any, place: int, pair: tuple[str, ...], records: Sequence[Mapping[str, Any]]
) -> Label:
    x = np.array([record["x"] for record in records])
    order = np.argsort(x)
    ends = np.array([_ends(record["difference"]) for record in records])[order]
    colour = colour_of(place)
    axes.plot(x[order], ends[:, 1], color=colour, linewidth=0.8, alpha=0.6)
    axes.errorbar(
        x[order],
        ends[:, 1],
        yerr=np.abs(ends[:, [0, 2]] - ends[:, [1]]).T,
        fmt=marker_of(place),
        color=colour,
        markersize=5,
        elinewidth=1.2,
    )
    return Label(_less(pair), float(ends[-1, 1]), colour)


def _ends(record: Mapping[str, Any]) -> tuple[float, float, float]:
    value = record["value"]
    low, high = record["low"], record["high"]
    return value if low is None else low, value, value if high is None else high


def _linear(axes: Any, which: str, records: Sequence[Mapping[str, Any]]) -> None:
    """A linear axis that holds all intervals and 0."""
    ends = np.array([_ends(record["difference"]) for record in records])
    low, high = min(ends.min(), 0.0), max(ends.max(), 0.0)
    pad = 0.12 * (high - low) or 1e-3
    linear_axis(axes, which, low - pad, high + pad)


def _sides(axes: Any, pair: tuple[str, ...], *, higher_is_first: bool) -> None:
    upper, lower = pair if higher_is_first else pair[::-1]
    for y, va, name in ((0.98, "top", upper), (0.02, "bottom", lower)):
        axes.text(
            0.98, y, f"{cut(name, 24)} better", transform=axes.transAxes, ha="right", va=va,
            color=MUTED, fontsize=11.5,
        )  # fmt: skip


def _less(pair: Sequence[str]) -> str:
    return f"{pair[0]} less {pair[1]}"


def _by_pair(
    records: Sequence[Mapping[str, Any]], metric: str, by: str
) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """The comparisons of a metric that have a value, by the sides that they compare."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        there = record["difference"]["value"] is not None
        if there and (record["metric"], record["by"]) == (metric, by):
            found.setdefault(tuple(record["sides"]), []).append(record)
    return found


def _won(records: Sequence[Mapping[str, Any]]) -> str:
    """How often each side is better, and the first and last difference."""
    sides = list(dict.fromkeys(name for record in records for name in record["sides"]))
    counts = {name: sum(record["better"] == name for record in records) for name in sides}
    ties = sum(record["better"] is None for record in records)
    won = ", ".join(f"{clean(name)} is better in {count}" for name, count in counts.items())
    ends = " and ".join(
        dict.fromkeys(estimate(record["difference"]) for record in (records[0], records[-1]))
    )
    return f"Of {len(records)} comparisons {won}, {ties} are undecided; differences {ends}"
