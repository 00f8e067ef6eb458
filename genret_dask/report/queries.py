"""The queries that a run does worst and best on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genret_dask.cube.open import reading
from genret_dask.datasets import stored
from genret_dask.errors import GenretError
from genret_dask.report.gather import Kind
from genret_dask.report.text import clean, decimal
from genret_dask.storage.artefacts import RECORD
from genret_dask.storage.layout import RunLayout

logger = logging.getLogger(__name__)

SHOWN = 8
"""Queries of each side, at most."""

_MOST_DOCUMENTS = 200_000
_TEXT, _TITLE = 240, 110


def extreme_queries(kind: Kind, documents: Sequence[str] | None) -> dict[str, Any] | None:
    """Find the worst and best queries of a kind's best model, by CGL.

    Parameters
    ----------
    kind : Kind
    documents : sequence of str or None
        What to call each document of the collection.

    Returns
    -------
    dict or None
        model (of the lowest mean CGL), beam (the largest), worst and best: lists of query, text,
        cgl, all_models (mean CGL over the models), rank (of the first relevant document, as text),
        relevant and returned (a relevant document, and the first that was returned). No query is
        in both. None where no model has a CGL.
    """
    if not np.isfinite(kind.means.cgl).any():
        return None
    best = int(np.nanargmin(kind.means.cgl))
    losses = kind.values["cgl"].values
    there = np.flatnonzero(np.isfinite(losses[best]))
    order = there[np.argsort(losses[best][there], kind="stable")]
    worst = order[::-1][: min(SHOWN, max(1, len(order) // 2))]
    easy = order[: min(SHOWN, len(order) // 2)]
    rows = np.concatenate([worst, easy])
    with reading(f"{kind.name}: queries"):
        searched = kind.search.isel(query=rows)
        texts, names = ([str(one) for one in searched[name].values] for name in ("text", "query"))
        ranked = searched["doc"].isel(model=best, beam=kind.means.widest).values
        judged = kind.contrast[["doc", "is_positive"]].isel(query=rows).compute()
    candidates, positive = judged["doc"].values, judged["is_positive"].values.astype(bool)
    found = []
    for row, query in enumerate(rows):
        here = losses[:, query]
        relevant = candidates[row][positive[row] & (candidates[row] >= 0)]
        found.append(
            {
                "query": clean(names[row]),
                "text": _cut(texts[row], _TEXT),
                "cgl": decimal(float(losses[best, query])),
                "all_models": decimal(float(here[np.isfinite(here)].mean())),
                "rank": _rank(ranked[row], relevant),
                "relevant": _name(relevant, documents),
                "returned": _name(ranked[row][ranked[row] >= 0], documents),
            }
        )
    return {
        "model": clean(str(kind.means.model[best])),
        "beam": int(kind.means.beam[kind.means.widest]),
        "worst": found[: len(worst)],
        "best": found[len(worst) :],
    }


def document_names(run: Path, documents: int | None) -> list[str] | None:
    """List titles or first words of a run's documents; None where it has none, or very many."""
    folder = RunLayout(run).collection
    if not (folder / RECORD).is_file() or documents is None or documents > _MOST_DOCUMENTS:
        return None
    try:
        collection = stored.read_artefact(folder)
    except GenretError as error:
        logger.warning("documents are shown by number: %s", error.found)
        return None
    rows = zip(collection.document_ids, collection.titles, collection.texts, strict=True)
    return [f"{name}: {title or text[: 2 * _TITLE]}" for name, title, text in rows]


def _rank(ranked: np.ndarray, relevant: np.ndarray) -> str:
    hits = np.flatnonzero(np.isin(ranked, relevant) & (ranked >= 0))
    return f"{hits[0] + 1}" if len(hits) else f"not in {int((ranked >= 0).sum())}"


def _name(rows: np.ndarray, documents: Sequence[str] | None) -> str:
    if not len(rows):
        return "none"
    row = int(rows[0])
    if documents is None or row >= len(documents):
        return f"document {row}"
    return _cut(documents[row], _TITLE)


def _cut(text: str, length: int) -> str:
    text = clean(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
