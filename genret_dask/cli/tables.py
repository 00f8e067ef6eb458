"""Records, plans and comparisons as plain text, aligned for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genret_dask.redaction import printable


def columns(text: str) -> dict[str, str]:
    """Columns of a table, key to heading, written as ``key`` or ``key=heading`` between semicolons.

    Examples
    --------
    >>> columns("model; n_params=N")
    {'model': 'model', 'n_params': 'N'}
    """
    pairs = (part.strip().partition("=") for part in text.split(";"))
    return {key: heading or key for key, _, heading in pairs}


METRIC_COLUMNS = columns(
    "model; n_params=N; n_train=D; beam; recall@1=R@1; recall@10=R@10; queries; cgl=CGL; negatives;"
    "flops=FLOPs/query"
)
"""Of the records of `genret_dask.metrics.table`."""

FIT_COLUMNS = columns("law; series; metric; axis; exponent; asymptote; scale; r2=R2; n")
"""Of the records of `genret_dask.fits.table`, a line for each axis."""

FORECAST_COLUMNS = columns(
    "law; series; at=largest left out; predicted; observed; error; covered=in the interval"
)
"""Of the forecasts of those records."""

PRECISION_COLUMNS = columns(
    "model; cgl=CGL less fp32's; recall@10=R@10 less fp32's; recall@100=R@100 less fp32's"
)
"""Of the records of `genret_dask.metrics.precision`."""

CHOICE_COLUMNS = columns(
    "model; beam; flops=FLOPs/query; train_flops=FLOPs to train; recall; stable"
)
"""Of the records of `genret_dask.fits.frontier`; `recall` is headed by the metric."""

OUTLOOK_COLUMNS = columns(
    "family; n=N; d=D; beam=beam, about; flops=FLOPs/query; train_flops=FLOPs to train;"
    "recall; needed=FLOPs for the target; r2=R2; points=n"
)
"""Of the records of `genret_dask.fits.outlook`."""

COMPARE_COLUMNS = columns(
    "set=of; by=matched by; at; metric; pair=first, second; first; second; difference; better"
)
"""Of the records of `genret_dask.fits.compare`."""


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
        A value is a text, a number, None, or an estimate: a mapping of `low`, `high`, `mean` or
        `value`, and perhaps `n`.
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
    right = [not any(_is_text(record.get(key)) for record in records) for key in columns]
    headings = list(columns.values())
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def labelled(rows: Mapping[str, Any], width: int = 10, gap: str = " ") -> str:
    """One line for each label and its value; without those that are None."""
    return "\n".join(f"{key:<{width}}{gap}{rows[key]}" for key in rows if rows[key] is not None)


def facts_table(facts: Mapping[str, Any]) -> str:
    """A line for each fact, its name in words.

    Examples
    --------
    >>> print(facts_table({"documents": 40, "tokens_mean": 3.0}))
      documents    40
      tokens mean  3
    """
    rows = {f"  {key.replace('_', ' ')}": _text(value, True) for key, value in facts.items()}
    return labelled(rows, width=max(map(len, rows), default=0), gap="  ")


def metrics_table(
    records: Sequence[Mapping[str, Any]],
    shown: Mapping[str, str] = METRIC_COLUMNS,
    *,
    intervals: bool = False,
) -> str:
    """The table of model x beam; a mean of fewer queries than its line has says of how many."""
    lines = [{key: _of_fewer(value, record) for key, value in record.items()} for record in records]
    return format_table(lines, kinds_told_apart(records, shown), intervals=intervals)


def _of_fewer(value: Any, record: Mapping[str, Any]) -> Any:
    """An estimate, with its count of queries only where it differs from the record's."""
    if not isinstance(value, Mapping) or value.get("n") != record.get("queries"):
        return value
    return {key: part for key, part in value.items() if key != "n"}


def with_metric(shown: Mapping[str, str], metric: str, before: str) -> dict[str, str]:
    """Columns, with that of a metric before another one where there is none of it yet."""
    from genret_dask.metrics.reported import short_name

    if metric in shown:
        return dict(shown)
    place = list(shown).index(before)
    pairs = list(shown.items())
    return dict([*pairs[:place], (metric, short_name(metric)), *pairs[place:]])


def fits_table(records: Sequence[Mapping[str, Any]]) -> str:
    """The table of fitted laws, their forecasts, and what speaks against them."""
    lines = [line for record in records for line in _axes(record)]
    parts = [format_table(lines, kinds_told_apart(records, FIT_COLUMNS))]
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
    forecast, relative = record["forecast"], record["forecast"]["relative_error"]
    places = zip(record["axes"], forecast["x"], strict=True)
    return {
        **record,
        **forecast,
        "at": ", ".join(f"{axis.upper()} {_decimal(value)}" for axis, value in places),
        "error": "-" if relative is None else f"{relative:+.1%}",
    }


def precision_table(records: Sequence[Mapping[str, Any]], metric: str = "cgl") -> str:
    """The table of what reduced precisions change, each with its 95 % interval.

    With a column of the main metric, if there is none of it yet.
    """
    shown = PRECISION_COLUMNS
    if metric not in shown:
        from genret_dask.metrics.reported import short_name

        shown = {**shown, metric: f"{short_name(metric)} less fp32's"}
    return format_table(records, kinds_told_apart(records, shown))


def plan_text(record: Mapping[str, Any]) -> str:
    """Frontier, choice and outlook of one identifier kind."""
    from genret_dask.metrics.reported import short_name

    budget, choice, predicted = record["budget"], record["measured"], record["predicted"]
    target, metric = budget["target_recall"], short_name(record["metric"])
    choices, outlook = ({**one, "recall": metric} for one in (CHOICE_COLUMNS, OUTLOOK_COLUMNS))
    limits = [
        f"{budget[key]:.4g} {words}"
        for key, words in (("flops", "FLOPs a query"), ("train_flops", "FLOPs to train"))
        if budget[key] is not None
    ]
    wanted = f"best {metric}" if target is None else f"fewest FLOPs for {metric} {target:g}"
    wanted += f" within {' and '.join(limits)}" if limits else ""
    parts = [
        f"{record['identifiers']}: frontier of what was measured",
        format_table(record["frontier"], choices),
        f"{wanted}, measured",
        format_table([choice], choices) if choice else "  nothing that was measured does",
    ]
    if record["rivals"]:
        parts.append("cheaper, and not surely worse (95 % interval of the difference holds 0)")
        parts.append(format_table(record["rivals"], choices))
    outlook = {k: v for k, v in outlook.items() if k != "needed" or target is not None}
    rounded = [{**item, "n": round(item["n"]), "d": round(item["d"])} for item in predicted]
    parts.append(f"{wanted}, by the surface L(N,D,C) of each family")
    parts.append(format_table(rounded, outlook) if predicted else "  no family has a surface")
    notes = [
        f"{item['family']}: {'; '.join([*item['beyond'], *item['warnings']])}"
        for item in predicted
        if item["beyond"] or item["warnings"]
    ]
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts)


def compare_table(records: Sequence[Mapping[str, Any]]) -> str:
    """One line for each comparison; a dash as the better one where the interval holds 0."""
    return format_table([_comparison(record) for record in records], COMPARE_COLUMNS)


def _comparison(record: Mapping[str, Any]) -> dict[str, Any]:
    beam = f" beam {record['beam']}" if "beam" in record else ""
    return {
        **record,
        "by": record["by"].upper() if len(record["by"]) == 1 else record["by"],
        "at": f"{record['x']:.4g}" if "x" in record else record.get("model", ""),
        "metric": record["metric"] + beam,
        "pair": ", ".join(record.get("of", record["sides"])),
        "better": record["better"] or "-",
    }


def kinds_told_apart(
    records: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> dict[str, str]:
    """Columns, and the identifier kind before them where the records have several."""
    several = len({record.get("identifiers") for record in records} - {None}) > 1
    return {**({"identifiers": "ids"} if several else {}), **columns}


def _is_text(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, Sequence) and len(value) > 0)


def _text(value: Any, intervals: bool) -> str:
    if isinstance(value, Mapping):
        middle = _text(value.get("mean", value.get("value")), intervals)
        of = f" of {value['n']:,}" if "n" in value else ""
        if not intervals or middle == "-":
            return middle + of
        ends = ", ".join(_text(value[end], intervals) for end in ("low", "high"))
        return f"{middle} [{ends}]{of}"
    if value is None:
        return "-"
    if isinstance(value, str):
        return printable(value).replace("\n", " ")
    if isinstance(value, bool):
        return "yes" if value else "no"
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
