"""Points of laws from a CSV file: columns series, n and/or d and/or c, y, optionally weight."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genret_dask.errors import InputError
from genret_dask.fits.laws import parameters
from genret_dask.fits.points import Points

AXES = ("n", "d", "c")
COLUMNS = ("series", *AXES, "y", "weight")

_EXPECTED = "columns series, n and/or d and/or c, y, and optionally weight"


@dataclass(frozen=True)
class _Row:
    line: int
    series: str
    x: tuple[float, ...]
    y: float
    weight: float | None


def read_points(path: Path | str) -> list[Points]:
    """Read the points of each series; a series may be of one axis or of several.

    Parameters
    ----------
    path : path
        UTF-8, with a heading. n is parameters, d training data, c inference compute, y a loss or an
        error rate; weight is that of the squared residual, as one over the variance of y. An axis
        that a series leaves empty in every row, or that has one value there, is not an axis of its
        law. Without the column series all points are one series.

    Returns
    -------
    list of Points
        In the order of the file.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column, has too few points for any law, or a line holds
        what is not a number, or not in range; the message names file and line.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "points.csv"
    >>> _ = path.write_text("series,n,y\\nt5,1e6,0.5\\nt5,1e7,0.3\\nt5,1e8,0.2\\n")
    >>> [(item.law, item.series, len(item.y)) for item in read_points(path)]
    [('L(N)', 't5', 3)]
    """
    path = Path(path)
    axes, rows = _read(path)
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.series, []).append(row)
    if not groups:
        raise InputError(f"{path} has a heading and no points", expected=_EXPECTED)
    found = [_points(path, series, axes, group) for series, group in groups.items()]
    if all(points.distinct < parameters(len(points.axes)) for points in found):
        most = max(found, key=lambda points: points.distinct)
        raise InputError(
            f"{path} has too few points: {most.distinct} different {most.law[1:]} of series "
            f"{most.series!r}",
            expected=f"{parameters(len(most.axes))} or more, the parameters of {most.law}",
        )
    return found


def _read(path: Path) -> tuple[tuple[str, ...], list[_Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            heading = next((row for row in reader if any(map(str.strip, row))), None)
            if heading is None:
                raise InputError(f"{path} is empty", expected=_EXPECTED)
            places = _columns(path, heading)
            axes = tuple(axis for axis in AXES if axis in places)
            return axes, list(_rows(path, reader, places, axes, len(heading)))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}", expected="a CSV file of points"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} is not a CSV file in UTF-8: {error}", expected=_EXPECTED
        ) from error


def _columns(path: Path, heading: list[str]) -> dict[str, int]:
    names = [name.strip().lower() for name in heading]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path} has the column {twice[0]!r} twice", expected=_EXPECTED)
    places = {name: names.index(name) for name in COLUMNS if name in names}
    missing = [] if "y" in places else ["y"]
    if not any(axis in places for axis in AXES):
        missing.append("n, d or c")
    if missing:
        raise InputError(
            f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(names)}",
            expected=_EXPECTED,
        )
    return places


def _rows(
    path: Path,
    reader: Iterator[list[str]],
    places: dict[str, int],
    axes: tuple[str, ...],
    width: int,
) -> Iterator[_Row]:
    for cells in reader:
        line = reader.line_num  # type: ignore[attr-defined]
        if not any(map(str.strip, cells)):
            continue
        if len(cells) != width:
            raise InputError(
                f"{path}, line {line}, has {len(cells)} fields",
                expected=f"{width}, as the heading has",
            )

        def cell(name: str, cells: list[str] = cells) -> str:
            return cells[places[name]].strip() if name in places else ""

        where = f"{path}, line {line}"
        x = tuple(
            _number(where, axis, cell(axis), above=True) if cell(axis) else math.nan
            for axis in axes
        )
        weight = _number(where, "weight", cell("weight"), above=True) if cell("weight") else None
        yield _Row(line, cell("series"), x, _number(where, "y", cell("y"), above=False), weight)


def _number(where: str, column: str, text: str, *, above: bool) -> float:
    expected = "a number above 0" if above else "a number, 0 or above"
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: {column} is {text!r}", expected=expected) from None
    if not math.isfinite(value) or value < 0 or (above and value == 0):
        raise InputError(f"{where}: {column} is {text}", expected=expected)
    return value


def _points(path: Path, series: str, axes: tuple[str, ...], rows: list[_Row]) -> Points:
    x = np.array([row.x for row in rows])
    name = f"series {series!r}" if series else "the only series"
    used = []
    for place, axis in enumerate(axes):
        empty = np.isnan(x[:, place])
        if empty.any() and not empty.all():
            line = rows[int(np.flatnonzero(empty)[0])].line
            raise InputError(
                f"{path}, line {line}: {axis} is empty",
                expected=f"a number above 0, as elsewhere in {name}",
            )
        if not empty.any() and np.ptp(x[:, place]) > 0:
            used.append(place)
    if not used:
        used = [place for place in range(len(axes)) if not np.isnan(x[:, place]).any()][:1]
    if not used:
        raise InputError(
            f"{path}, line {rows[0].line}: {name} has no {', '.join(axes)}",
            expected="a number above 0 in one of them",
        )
    weights = [row.weight for row in rows]
    given = [weight for weight in weights if weight is not None]
    if given and len(given) < len(rows):
        line = next(row.line for row in rows if row.weight is None)
        raise InputError(
            f"{path}, line {line}: weight is empty", expected=f"a weight in every row of {name}"
        )
    names = tuple(axes[place] for place in used)
    return Points(
        law=f"L({','.join(names).upper()})",
        series=series or path.stem,
        metric="y",
        axes=names,
        x=x[:, used],
        y=np.array([row.y for row in rows]),
        weights=np.array(given) if given else None,
    )
