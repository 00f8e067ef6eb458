"""What a sealed cube says, as files: metrics, fits, precisions, trec runs and qrels."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from genret_dask.datasets.collection import Collection
from genret_dask.errors import listed
from genret_dask.fits.table import fits_of
from genret_dask.metrics.baselines import baseline_records
from genret_dask.metrics.precision import precision_changes
from genret_dask.metrics.runs import write_baselines, write_qrels, write_run
from genret_dask.metrics.table import records
from genret_dask.specs import SweepSpec
from genret_dask.study.reductions import Reductions

logger = logging.getLogger(__name__)

RESULTS = ("metrics", "fits", "precision")
"""Stems of the JSON files that `write_results` leaves."""


def _warn_of_empty_rankings(kind: str, beam: int, empty: int, rankings: int) -> None:
    """Say so where n-grams rank nothing: none is likelier to its model than in the corpus."""
    if empty:
        logger.warning(
            "%d of %d rankings of %s at beam %d hold no document: none of their n-grams is "
            "likelier to the model than in the corpus, so that none weighs anything",
            empty,
            rankings,
            kind,
            beam,
        )


def _warn_of_unknown_training(reductions: Reductions) -> None:
    """Say which models no law over D can have: ready checkpoints of unknown training."""
    unknown = {
        str(name)
        for search, _ in reductions.kinds.values()
        for name in search["model"].values[~np.isfinite(search["n_train"].values)]
    }
    if unknown:
        logger.warning(
            "n_train of %s is not known: laws over D leave %s out; models.n_train gives it",
            listed(sorted(unknown)),
            "it" if len(unknown) == 1 else "them",
        )


def write_results(
    reductions: Reductions, collection: Collection, spec: SweepSpec, folder: Path
) -> None:
    """Compute metrics and fits of a cube into a folder, as JSON and trec files."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in RESULTS}
    draws, seed, metric = spec.fits.bootstrap, spec.seed, reductions.metric
    _warn_of_unknown_training(reductions)
    for kind, (search, contrast) in reductions.kinds.items():
        values = reductions.values[kind]
        found["metrics"] += records(kind, values, draws, seed)
        fits = fits_of(kind, values, draws, seed, metric=metric)
        found["fits"] += [fit.record() for fit in fits]
        found["precision"] += precision_changes(kind, values, draws, seed, metric=metric)
        trec = folder / "trec" / kind
        trec.mkdir(parents=True)
        write_qrels(contrast, collection.document_ids, trec / "qrels.txt")
        beam, empty = max(spec.inference.beams), 0
        for row, model in enumerate(search["model"].values.tolist()):
            rankings = reductions.rankings(kind, row)
            path = trec / f"{model}.beam{beam}.run"
            write_run(rankings, collection.document_ids, path, model=model, beam=beam)
            empty += int((rankings["doc"].values[..., 0] < 0).sum())
        _warn_of_empty_rankings(kind, beam, empty, search.sizes["model"] * search.sizes["query"])
    found["metrics"] += baseline_records(reductions.baselines, draws, seed)
    write_baselines(reductions.tree, collection.document_ids, folder / "trec")
    for name, content in found.items():
        if content or name != "precision":
            text = json.dumps(content, indent=1) + "\n"
            (folder / f"{name}.json").write_text(text, encoding="utf-8")
