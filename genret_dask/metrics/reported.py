"""What is reported of a cube: its measures by name, and the one that its results are told by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from genret_dask.datasets.base import MAIN_METRIC
from genret_dask.datasets.stored import has_answers
from genret_dask.errors import InputError
from genret_dask.metrics.answers import ANSWERS, CUT_OFFS, answer_hits
from genret_dask.metrics.ranking import FAMILIES, Measure, measures
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import place_of

_SHORT = {"recall": "R", "mrr": "MRR", "ndcg": "nDCG", "map": "MAP", "success": "S"}


def run_of(tree: xr.DataTree) -> Path | None:
    """The run directory of a cube that `open_cube` opened; None for another tree."""
    source = tree.root.encoding.get("source")
    return place_of(source).parent if source else None


def main_metric(attributes: Mapping[Any, Any]) -> str:
    """The metric that the collection of a cube named, by the attributes of the cube's root."""
    return str(attributes.get("main_metric", MAIN_METRIC))


def measures_of(tree: xr.DataTree) -> dict[str, Measure]:
    """What is reported of a cube, by name: its main metric is always among them.

    They are those of `ranking.measures`, and `answer_hits` where the run's collection has answers.
    """
    collection, name = _answers(tree), main_metric(tree.root.attrs)
    return {**_reported(collection), name: _find(name, collection)}


def measure_of(tree: xr.DataTree, name: str | None = None) -> Measure:
    """Return a measure of a cube by its name, at any cut-off; by default its main metric.

    Raises
    ------
    InputError
        There is no measure of that name; or it looks at answers, and the run has none.
    """
    return _find(main_metric(tree.root.attrs) if name is None else name, _answers(tree))


def check_metric(name: str) -> None:
    """Raise `InputError` where no cube can have a measure of that name."""
    _find(name, Path())


def is_metric(name: str) -> bool:
    """Tell whether some cube can have a measure of rankings of that name."""
    try:
        check_metric(name)
    except InputError:
        return False
    return True


def short_name(metric: str) -> str:
    """The name of a measure as papers write it.

    Examples
    --------
    >>> short_name("recall@10"), short_name("mrr@10"), short_name("f1")
    ('R@10', 'MRR@10', 'f1')
    """
    family, at, k = metric.partition("@")
    return _SHORT.get(family, family) + at + k


def _answers(tree: xr.DataTree) -> Path | None:
    """The collection of a cube's run, if it has answers."""
    run = run_of(tree)
    collection = None if run is None else RunLayout(run).collection
    return collection if collection is not None and has_answers(collection) else None


def _families(collection: Path | None) -> dict[str, Callable[..., xr.DataArray]]:
    of_texts = {} if collection is None else {ANSWERS: partial(answer_hits, collection=collection)}
    return {**FAMILIES, **of_texts}


def _reported(collection: Path | None) -> dict[str, Measure]:
    hits = _families(collection).get(ANSWERS)
    of_answers = {f"{ANSWERS}@{k}": partial(hits, k=k) for k in CUT_OFFS} if hits else {}
    return {**measures(), **of_answers}


def _find(name: str, collection: Path | None) -> Measure:
    known, families = _reported(collection), _families(collection)
    if name in known:
        return known[name]
    family, _, k = name.partition("@")
    if family in families and re.fullmatch("[1-9][0-9]{0,8}", k):
        return partial(families[family], k=int(k))
    raise InputError(
        f"there is no metric {name!r}",
        expected=f"one of {', '.join(known)}; or at any k {', '.join(f'{f}@k' for f in families)}",
        fix="open the cube in a run directory whose collection has answers"
        if family == ANSWERS
        else "install the package that has it in its entry points genret_dask.metrics",
    )
