"""Plans and comparisons as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genret_dask.cli.tables import format_table

CHOICE_COLUMNS = {
    "model": "model",
    "beam": "beam",
    "flops": "FLOPs/query",
    "train_flops": "FLOPs to train",
    "recall": "R@10",
    "stable": "stable",
}
"""Of the records of `genret_dask.fits.frontier`: key to heading."""

OUTLOOK_COLUMNS = {
    "family": "family",
    "n": "N",
    "d": "D",
    "beam": "beam, about",
    "flops": "FLOPs/query",
    "train_flops": "FLOPs to train",
    "recall": "R@10",
    "needed": "FLOPs for the target",
    "r2": "R2",
    "points": "n",
}
"""Of the records of `genret_dask.fits.outlook`: key to heading."""

COMPARE_COLUMNS = {
    "set": "of",
    "by": "matched by",
    "at": "at",
    "metric": "metric",
    "pair": "first, second",
    "first": "first",
    "second": "second",
    "difference": "difference",
    "better": "better",
}
"""Of the records of `genret_dask.fits.compare`: key to heading."""


def plan_text(record: Mapping[str, Any]) -> str:
    """Frontier, choice and outlook of one identifier kind."""
    budget = record["budget"]
    target = budget["target_recall"]
    limits = [
        f"{budget[key]:.4g} {words}"
        for key, words in (("flops", "FLOPs a query"), ("train_flops", "FLOPs to train"))
        if budget[key] is not None
    ]
    within = f" within {' and '.join(limits)}" if limits else ""
    parts = [
        f"{record['identifiers']}: frontier of what was measured",
        format_table(record["frontier"], CHOICE_COLUMNS),
    ]
    wanted = f"best R@10{within}" if target is None else f"fewest FLOPs for R@10 {target:g}{within}"
    choice = record["measured"]
    parts.append(f"{wanted}, measured")
    parts.append(
        format_table([choice], CHOICE_COLUMNS) if choice else "  nothing that was measured does"
    )
    if record["rivals"]:
        parts.append("cheaper, and not surely worse (95 % interval of the difference holds 0)")
        parts.append(format_table(record["rivals"], CHOICE_COLUMNS))
    parts.append(f"{wanted}, by the surface L(N,D,C) of each family")
    predicted = record["predicted"]
    columns = {k: v for k, v in OUTLOOK_COLUMNS.items() if k != "needed" or target is not None}
    rounded = [{**item, "n": round(item["n"]), "d": round(item["d"])} for item in predicted]
    parts.append(format_table(rounded, columns) if predicted else "  no family has a surface")
    notes = [
        f"{item['family']}: {'; '.join([*item['beyond'], *item['warnings']])}"
        for item in predicted
        if item["beyond"] or item["warnings"]
    ]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def compare_table(records: Sequence[Mapping[str, Any]]) -> str:
    """One line for each comparison; a dash as the better one where the interval holds 0."""
    return format_table([_line(record) for record in records], COMPARE_COLUMNS)


def _line(record: Mapping[str, Any]) -> dict[str, Any]:
    at = record.get("model", "")
    if "x" in record:
        at = f"{record['x']:.4g}"
    beam = f" beam {record['beam']}" if "beam" in record else ""
    return {
        **record,
        "by": record["by"].upper() if len(record["by"]) == 1 else record["by"],
        "at": at,
        "metric": record["metric"] + beam,
        "pair": ", ".join(record.get("of", record["sides"])),
        "better": record["better"] or "-",
    }
