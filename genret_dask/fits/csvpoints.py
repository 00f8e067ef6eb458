"""Points of laws from a CSV file: columns series, n and/or d and/or c, y, optionally weight."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genret_dask.errors import InputError
from genret_dask.fits.laws import parameters
from genret_dask.fits.points import Points

AXES = ("n", "d", "c")

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
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}", expected="a CSV file of points"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} is not a CSV file in UTF-8: {error}", expected=_EXPECTED
        ) from error
    lines = [(line, cells) for line, cells in lines if any(cells)]
    if not lines:
        raise InputError(f"{path} is empty", expected=_EXPECTED)
    names = [name.lower() for name in lines[0][1]]
    axes = _axes(path, names)
    return axes, [
        _row(f"{path}, line {line}", line, names, axes, cells) for line, cells in lines[1:]
    ]


def _axes(path: Path, names: list[str]) -> tuple[str, ...]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path} has the column {twice[0]!r} twice", expected=_EXPECTED)
    axes = tuple(axis for axis in AXES if axis in names)
    missing = [*([] if "y" in names else ["y"]), *([] if axes else ["n, d or c"])]
    if missing:
        raise InputError(
            f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(names)}",
            expected=_EXPECTED,
        )
    return axes


def _row(where: str, line: int, names: list[str], axes: tuple[str, ...], cells: list[str]) -> _Row:
    if len(cells) != len(names):
        raise InputError(
            f"{where}, has {len(cells)} fields", expected=f"{len(names)}, as the heading has"
        )
    row = dict(zip(names, cells, strict=True))
    x = tuple(
        _number(where, axis, row[axis], above=True) if row[axis] else math.nan for axis in axes
    )
    given = row.get("weight")
    weight = _number(where, "weight", given, above=True) if given else None
    return _Row(line, row.get("series", ""), x, _number(where, "y", row["y"], above=False), weight)


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
    given = ~np.isnan(x)
    for place, axis in enumerate(axes):
        if given[:, place].any() and not given[:, place].all():
            line = rows[int(given[:, place].argmin())].line
            raise InputError(
                f"{path}, line {line}: {axis} is empty",
                expected=f"a number above 0, as elsewhere in {name}",
            )
    whole = np.flatnonzero(given.all(axis=0))
    used = [place for place in whole if np.ptp(x[:, place]) > 0] or whole[:1].tolist()
    if not used:
        raise InputError(
            f"{path}, line {rows[0].line}: {name} has no {', '.join(axes)}",
            expected="a number above 0 in one of them",
        )
    weights = [row.weight for row in rows]
    if None in weights and any(weights):
        raise InputError(
            f"{path}, line {rows[weights.index(None)].line}: weight is empty",
            expected=f"a weight in every row of {name}",
        )
    names = tuple(axes[place] for place in used)
    return Points(
        law=f"L({','.join(names).upper()})",
        series=series or path.stem,
        metric="y",
        axes=names,
        x=x[:, used],
        y=np.array([row.y for row in rows]),
        weights=np.array(weights) if any(weights) else None,
    )
