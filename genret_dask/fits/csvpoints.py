"""Points of laws from a CSV file: columns series, n and/or d and/or c, y, optionally weight."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from genret_dask.errors import InputError
from genret_dask.fits.laws import parameters
from genret_dask.fits.points import Points

AXES = ("n", "d", "c")

_EXPECTED = "columns series, n and/or d and/or c, y, and optionally weight"


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
    (_, heading), *lines = _read(path)
    names = [name.lower() for name in heading]
    columns = _columns(path, names)
    groups: dict[str, dict[int, list[float]]] = {}
    for line, cells in lines:
        where = f"{path}, line {line}"
        if len(cells) != len(names):
            raise InputError(
                f"{where}, has {len(cells)} fields", expected=f"{len(names)}, as the heading has"
            )
        row = dict(zip(names, cells, strict=True))
        numbers = [_number(where, column, row[column]) for column in columns]
        groups.setdefault(row.get("series", ""), {})[line] = numbers
    if not groups:
        raise InputError(f"{path} has a heading and no points", expected=_EXPECTED)
    found = [_points(path, series, columns, group) for series, group in groups.items()]
    if all(points.distinct < parameters(len(points.axes)) for points in found):
        most = max(found, key=lambda points: points.distinct)
        raise InputError(
            f"{path} has too few points: {most.distinct} different {most.law[1:]} of series "
            f"{most.series!r}",
            expected=f"{parameters(len(most.axes))} or more, the parameters of {most.law}",
        )
    return found


def _read(path: Path) -> list[tuple[int, list[str]]]:
    """The number and the cells of each line that is not empty."""
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
    return lines


def _columns(path: Path, names: list[str]) -> list[str]:
    """The columns of numbers: some axes, y, and perhaps weight."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path} has the column {twice[0]!r} twice", expected=_EXPECTED)
    axes = [axis for axis in AXES if axis in names]
    missing = [*([] if "y" in names else ["y"]), *([] if axes else ["n, d or c"])]
    if missing:
        raise InputError(
            f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(names)}",
            expected=_EXPECTED,
        )
    return [*axes, "y", *(["weight"] if "weight" in names else [])]


def _number(where: str, column: str, text: str) -> float:
    """A finite number; NaN where an axis or a weight is empty."""
    if column != "y" and not text:
        return math.nan
    expected = "a number, 0 or above" if column == "y" else "a number above 0"
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: {column} is {text!r}", expected=expected) from None
    if not math.isfinite(value) or value < 0 or (column != "y" and value == 0):
        raise InputError(f"{where}: {column} is {text}", expected=expected)
    return value


def _points(path: Path, series: str, columns: list[str], rows: dict[int, list[float]]) -> Points:
    name = f"series {series!r}" if series else "the only series"
    numbers = dict(zip(columns, np.array(list(zip(*rows.values(), strict=True))), strict=True))
    for column, values in numbers.items():
        empty = np.isnan(values)
        if empty.any() and not empty.all():
            raise InputError(
                f"{path}, line {list(rows)[empty.argmax()]}: {column} is empty",
                expected=f"a number above 0, as elsewhere in {name}",
            )
    whole = [axis for axis in columns if axis in AXES and not np.isnan(numbers[axis]).any()]
    axes = tuple(axis for axis in whole if np.ptp(numbers[axis]) > 0) or tuple(whole[:1])
    if not axes:
        asked = ", ".join(axis for axis in columns if axis in AXES)
        raise InputError(
            f"{path}, line {min(rows)}: {name} has no {asked}",
            expected="a number above 0 in one of them",
        )
    weights = numbers.get("weight", np.full(len(rows), np.nan))
    return Points(
        law=f"L({','.join(axes).upper()})",
        series=series or path.stem,
        metric="y",
        axes=axes,
        x=np.stack([numbers[axis] for axis in axes], axis=1),
        y=numbers["y"],
        weights=None if np.isnan(weights).any() else weights,
    )
