"""Records as plain text, aligned for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genret_dask.redaction import printable

METRIC_COLUMNS = {
    "model": "model",
    "n_params": "N",
    "n_train": "D",
    "beam": "beam",
    "recall@1": "R@1",
    "recall@10": "R@10",
    "queries": "queries",
    "cgl": "CGL",
    "negatives": "negatives",
    "flops": "FLOPs/query",
}
"""Of the records of `genret_dask.metrics.table`: key to heading."""

FIT_COLUMNS = {
    "law": "law",
    "series": "series",
    "metric": "metric",
    "axis": "axis",
    "exponent": "exponent",
    "asymptote": "asymptote",
    "scale": "scale",
    "r2": "R2",
    "n": "n",
}
"""Of the records of `genret_dask.fits.table`, a line for each axis: key to heading."""

FORECAST_COLUMNS = {
    "law": "law",
    "series": "series",
    "at": "largest left out",
    "predicted": "predicted",
    "observed": "observed",
    "error": "error",
    "covered": "in the interval",
}
"""Of the forecasts of those records: key to heading."""

PRECISION_COLUMNS = {
    "model": "model",
    "cgl": "CGL less fp32's",
    "recall@10": "R@10 less fp32's",
    "recall@100": "R@100 less fp32's",
}
"""Of the records of `genret_dask.metrics.precision`: key to heading."""


def format_table(
    records: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str] | None = None,
    *,
    intervals: bool = True,
) -> str:
    """Align records as a table: a heading, a rule, a line for each record.

    Parameters
    ----------
    records : sequence of mapping
        A value is a text, a number, None, or an estimate: a mapping of `low`, `high` and `mean`
        or `value`.
    columns : mapping of key to heading, optional
        Which keys, in which order; all of the first record by default. A key that a record lacks
        is shown as None is: by a dash.
    intervals : bool
        Show the bounds of estimates.

    Returns
    -------
    str
        Without a line break at the end; numbers stand to the right.

    Examples
    --------
    >>> print(format_table([{"model": "t5", "beam": 10}, {"model": "llama", "beam": 2}]))
    model  beam
    -----  ----
    t5       10
    llama     2
    """
    if columns is None:
        columns = {key: key for key in (records[0] if records else ())}
    rows = [[_text(record.get(key), intervals) for key in columns] for record in records]
    right = [
        not any(isinstance(record.get(key) or None, str | Sequence) for record in records)
        for key in columns
    ]
    headings = list(columns.values())
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join(_aligned(line, widths, right) for line in lines)


def metrics_table(records: Sequence[Mapping[str, Any]], *, intervals: bool = False) -> str:
    """The table of model x beam that ends a sweep."""
    return format_table(records, kinds_told_apart(records, METRIC_COLUMNS), intervals=intervals)


def fits_table(records: Sequence[Mapping[str, Any]]) -> str:
    """The table of fitted laws, their forecasts, and what speaks against them."""
    parts = [
        format_table(
            [line for record in records for line in _axes(record)],
            kinds_told_apart(records, FIT_COLUMNS),
        )
    ]
    forecasts = [_forecast(record) for record in records if record["forecast"]]
    if forecasts:
        parts.append(format_table(forecasts, kinds_told_apart(records, FORECAST_COLUMNS)))
    label = kinds_told_apart(records, {})
    notes = [
        " ".join(str(record[key]) for key in [*label, "law", "series"] if record.get(key))
        + f": {'; '.join(record['warnings'])}"
        for record in records
        if record["warnings"]
    ]
    if notes:
        parts.append("\n".join(notes))
    sources = dict.fromkeys(record["source"] for record in records if record.get("source"))
    parts += [f"published: {source}" for source in sources]
    return "\n\n".join(parts)


def _axes(record: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for place, axis in enumerate(record["axes"]):
        first = {**record} if place == 0 else {key: "" for key in ("identifiers", *FIT_COLUMNS)}
        yield {
            **first,
            "axis": axis.upper(),
            "exponent": record["exponents"][axis],
            "scale": record["scales"][axis]["value"],
        }


def _forecast(record: Mapping[str, Any]) -> dict[str, Any]:
    forecast = record["forecast"]
    names = (axis.upper() for axis in record["axes"])
    at = ", ".join(
        f"{name} {_decimal(value)}" for name, value in zip(names, forecast["x"], strict=True)
    )
    relative, covered = forecast["relative_error"], forecast["covered"]
    return {
        **{key: record.get(key) for key in ("identifiers", "law", "series")},
        **{key: forecast[key] for key in ("predicted", "observed")},
        "at": at,
        "error": "-" if relative is None else f"{relative:+.1%}",
        "covered": "-" if covered is None else "yes" if covered else "no",
    }


def precision_table(records: Sequence[Mapping[str, Any]]) -> str:
    """The table of what reduced precisions change, each with its 95 % interval."""
    return format_table(records, kinds_told_apart(records, PRECISION_COLUMNS))


def kinds_told_apart(
    records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> dict[str, str]:
    """Columns, and the identifier kind before them where the records have several."""
    several = len({record.get("identifiers") for record in records} - {None}) > 1
    return {**({"identifiers": "ids"} if several else {}), **columns}


def _text(value: Any, intervals: bool) -> str:
    if isinstance(value, Mapping):
        middle = _text(value.get("mean", value.get("value")), intervals)
        if not intervals or middle == "-":
            return middle
        return f"{middle} [{_text(value['low'], intervals)}, {_text(value['high'], intervals)}]"
    if value is None:
        return "-"
    if isinstance(value, str):
        return printable(value).replace("\n", " ")
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _decimal(value)
    if isinstance(value, Iterable):
        return printable("; ".join(map(str, value)))
    return str(value)


def _decimal(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:.3e}"


def _aligned(cells: list[str], widths: list[int], right: list[bool]) -> str:
    placed = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(placed).rstrip()
