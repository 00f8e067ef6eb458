"""The sheet that figures are drawn on: SVG whose colours the page decides.

Figures are drawn in place-holder colours, which `themed` replaces by CSS variables (the page's
light and dark palettes) and `standalone` by the light palette, for files that any viewer can show.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from genret_dask.report.text import cut, decimal, short

WIDTH, HEIGHT = 460, 330
_LEFT, _TOP, _BOTTOM, _CHARACTER = 60, 30, 46, 6.5
_LABEL_CHARACTERS, _LABELS = 17, 14
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

INK, MUTED, GRID, PAPER = "#0a0001", "#0a0002", "#0a0003", "#0a0004"
SERIES = tuple(f"#0b000{place}" for place in range(7))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def colour_of(place: int) -> str:
    """Give the colour of a series by its place."""
    return SERIES[place % len(SERIES)]


def marker_of(place: int) -> str:
    """Give the marker of a series by its place."""
    return MARKERS[place % len(MARKERS)]


PALETTES: dict[str, dict[str, str]] = {
    "light": {
        "ink": "#1b1f24", "muted": "#57606a", "grid": "#dde1e6", "paper": "#ffffff",
        "series-0": "#0072b2", "series-1": "#c44e00", "series-2": "#00795a", "series-3": "#a8467f",
        "series-4": "#8a6d00", "series-5": "#4a4fb5", "series-6": "#5b6169",
    },
    "dark": {
        "ink": "#e8eaed", "muted": "#a9b1ba", "grid": "#343a42", "paper": "#15181c",
        "series-0": "#5bb5f0", "series-1": "#ff9351", "series-2": "#3fd0a5", "series-3": "#eb9dc9",
        "series-4": "#e3c04b", "series-5": "#a5a9ff", "series-6": "#b4bbc4",
    },
}  # fmt: skip
"""Colours by name; the series' are after Okabe and Ito (2008), each readable on its paper."""

_NAMES = dict(zip((INK, MUTED, GRID, PAPER, *SERIES), PALETTES["light"], strict=True))


@dataclass(frozen=True)
class Drawing:
    """A figure of the page, and of a file beside it.

    Attributes
    ----------
    name : str
        Of the file, without its suffix; unique in a page.
    title, alt : str
        What it shows, and what can be seen in it.
    notes : tuple of str
        Lines below it: laws with R2, n and intervals.
    svg : str
        In place-holder colours.
    """

    name: str
    title: str
    alt: str
    notes: tuple[str, ...]
    svg: str

    def themed(self) -> str:
        """Inline SVG: colours are the page's variables, ids are the drawing's own."""
        body = _bare(self.svg, self.name)
        body = _colour(body, lambda name: f"var(--{name})")
        label = f"<title>{escape(self.title)}</title><desc>{escape(self.alt)}</desc>"
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="figure" '
            f'aria-label="{escape(f"{self.title}. {self.alt}", _QUOTES)}">{label}{body}</svg>'
        )

    def standalone(self) -> str:
        """A file of its own, in the light palette."""
        body = _colour(_bare(self.svg, self.name), lambda name: PALETTES["light"][name])
        return (
            '<?xml version="1.0" encoding="utf-8"?>\n'
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" stroke-linejoin="round">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.alt)}</desc>"
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PALETTES["light"]["paper"]}"/>'
            f"{body}</svg>\n"
        )


@dataclass(frozen=True)
class Label:
    """A name at the right end of a series, at its last y."""

    text: str
    y: float
    colour: str = INK


_QUOTES = {'"': "&quot;", "'": "&#39;"}


_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "genret-dask",
    "font.size": 12,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.unicode_minus": True,
    "path.simplify": False,
}


@contextmanager
def sheet(labels: Sequence[str] = (), left: int = _LEFT) -> Iterator[tuple[Axes, list[str]]]:
    """Axes with room for labels at their right; the list gets the SVG on leaving."""
    longest = max((min(len(text), _LABEL_CHARACTERS) for text in labels), default=0)
    right = 24 + (longest * _CHARACTER - 2 if longest else 0)
    found: list[str] = []
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), facecolor="none")
        size = (WIDTH - left - right) / WIDTH, (HEIGHT - _TOP - _BOTTOM) / HEIGHT
        axes = figure.add_axes((left / WIDTH, _BOTTOM / HEIGHT, *size))
        axes.set_facecolor("none")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[:].set(color=MUTED, linewidth=0.8)
        axes.tick_params(colors=MUTED, labelcolor=INK, width=0.8, length=3, labelsize=12)
        axes.grid(True, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        yield axes, found
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
        found.append(buffer.getvalue())


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Name the axes: below, and above the y axis, where the name needs not be turned."""
    axes.set_xlabel(x, color=INK, fontsize=12)
    axes.text(
        8 / WIDTH, 1 - 16 / HEIGHT, y, transform=axes.figure.transFigure, color=INK, fontsize=12
    )


def log_axis(axes: Axes, which: str, low: float, high: float, *, pad: float = 0.06) -> None:
    """Make a logarithmic axis over [low, high] with ticks at 1, 2 and 5 times powers of 10."""
    span = max(np.log(high / low), 0.05)
    ends = low * np.exp(-pad * span), high * np.exp(pad * span)
    _scale(axes, which, "log", ends, log_ticks(*ends), short if which == "x" else decimal)


def linear_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Make a linear axis over [low, high] with ticks at round numbers."""
    ticks = linear_ticks(low, high)
    _scale(axes, which, "linear", (low, high), ticks, lambda value: decimal(value, 3))


def log_ticks(low: float, high: float) -> list[float]:
    """Choose at most seven places between two ends, at round numbers.

    Examples
    --------
    >>> [float(f"{tick:.6g}") for tick in log_ticks(8e3, 3e5)]
    [10000.0, 20000.0, 50000.0, 100000.0, 200000.0]
    """
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    every = max(1, int(np.ceil(np.log10(high / low) / 5)))
    found: list[float] = []
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        step = every if factors == (1,) else 1
        ticks = [f * 10.0**d for d in decades if d % step == 0 for f in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) > 7:
            break
        found = ticks
        if len(ticks) >= 4:
            break
    return found if len(found) > 1 else linear_ticks(low, high)


def linear_ticks(low: float, high: float) -> list[float]:
    """Choose four to six places between two ends, at round numbers."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw)
    first = np.ceil(low / step - 1e-9)
    return [float(place * step) for place in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def recall_axis(axes: Axes, low: float, high: float) -> None:
    """Make a logarithmic y axis of an error, best at the top, marked with the recall."""
    span = max(np.log(high / low), 0.05)
    ends = low * np.exp(-0.08 * span), min(high * np.exp(0.08 * span), 1.05)
    recalls = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999])
    errors = 1 - recalls
    inside = recalls[(errors >= ends[0]) & (errors <= ends[1])]
    if len(inside) < 3:
        inside = np.array(linear_ticks(max(1 - ends[1], 0.0), 1 - ends[0]))
    ticks = (1 - spread(inside, ends)).tolist()
    _scale(axes, "y", "log", ends[::-1], ticks, lambda error: f"{abs(round(1 - error, 6)):g}")


def spread(recalls: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Choose those of rising recalls whose marks are 6 % of the axis apart."""
    height = np.log(ends[1] / ends[0])
    kept: list[float] = []
    for recall in recalls:
        if not kept or np.log((1 - kept[-1]) / (1 - recall)) > 0.06 * height:
            kept.append(float(recall))
    return np.array(kept)


def _scale(
    axes: Axes,
    which: str,
    scale: str,
    ends: tuple[float, float],
    ticks: Sequence[float],
    text: Callable[[float], str],
) -> None:
    axes.set(**{f"{which}scale": scale, f"{which}lim": ends})
    axis = getattr(axes, f"{which}axis")
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(lambda value, _: text(value))


def end_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write names beside the right ends of their series, apart from each other."""
    to_pixels = axes.transData.transform
    kept = sorted(labels, key=lambda label: float(to_pixels((1.0, label.y))[1]))
    if len(kept) > _LABELS:
        kept = [kept[place] for place in np.linspace(0, len(kept) - 1, _LABELS).astype(int)]
    box = axes.get_window_extent()
    unit = box.height / (HEIGHT - _TOP - _BOTTOM)
    places = np.array([float(to_pixels((1.0, label.y))[1]) for label in kept])
    places = apart(places / unit, 14.0, box.y0 / unit + 4, box.y1 / unit - 2)
    for label, place in zip(kept, places, strict=True):
        axes.annotate(
            cut(label.text, _LABEL_CHARACTERS),
            xy=(1.0, (place * unit - box.y0) / box.height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=label.colour,
            fontsize=11.5,
            annotation_clip=False,
        )


def corner_names(axes: Axes, colours: Mapping[str, str]) -> None:
    """Write names in their colours, below each other in the upper left corner."""
    for row, (name, colour) in enumerate(colours.items()):
        place = (0.02, 0.98 - 0.065 * row)
        axes.text(*place, cut(name, 24), transform=axes.transAxes, va="top", color=colour)


def apart(places: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Move rising places as little as keeps them a gap apart between two ends."""
    if not len(places):
        return places
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    steps = np.arange(len(places)) * gap
    found = np.maximum.accumulate(np.maximum(places, low) - steps) + steps
    over = high - steps[::-1]
    return np.minimum(found, over)


def _bare(svg: str, name: str) -> str:
    """What is inside the svg element: no style sheet, ids that are used, with a prefix."""
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inside = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", inside, flags=re.DOTALL)
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    inside = inside.replace("xlink:href=", "href=")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', inside))
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())

    def kept(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in used else ""

    inside = re.sub(r' id="([^"]+)"', kept, inside)
    inside = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", inside)
    inside = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*", f"font-family: {_FONT}", inside)
    return re.sub(r"\s*\n\s*", " ", inside)


def _colour(svg: str, colour: Any) -> str:
    return re.sub(r"#0[ab]000\d", lambda match: colour(_NAMES[match[0]]), svg)
