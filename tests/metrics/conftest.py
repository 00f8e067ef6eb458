"""Small random cubes, made with xarray alone."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

DOCUMENTS = 40


def _random_cube(
    seed: int = 0,
    models: int = 2,
    queries: int = 6,
    beams: tuple[int, ...] = (1, 3, 12),
    positives: int = 3,
    negatives: int = 5,
    steps: int = 3,
    documents: int = DOCUMENTS,
    ties: bool = True,
) -> tuple[xr.Dataset, xr.Dataset]:
    rng = np.random.default_rng(seed)
    ranks = max(beams)
    doc = np.full((models, queries, len(beams), ranks), -1, dtype=np.int32)
    score = np.full(doc.shape, np.nan, dtype=np.float32)
    for m, q, b in np.ndindex(doc.shape[:3]):
        found = 0 if rng.random() < 0.15 else int(rng.integers(1, beams[b] + 1))
        found = min(found, documents)
        doc[m, q, b, :found] = rng.permutation(documents)[:found]
        values = -rng.integers(1, 4, found) if ties else -rng.random(found)
        score[m, q, b, :found] = np.sort(values.astype(np.float32))[::-1]

    width = positives + negatives + 1  # the last column is padding for every query
    candidate = np.full((queries, width), -1, dtype=np.int32)
    relevance = np.zeros((queries, width), dtype=np.int32)
    for q in range(queries):
        relevant = int(rng.integers(1, positives + 1))
        candidate[q, : relevant + negatives] = rng.permutation(documents)[: relevant + negatives]
        relevance[q, :relevant] = rng.integers(1, 4, relevant)
    is_positive = relevance > 0

    logit = rng.normal(size=(models, queries, width, steps)).astype(np.float32)
    partition = (logit + rng.gamma(2.0, size=logit.shape)).astype(np.float32)
    length = rng.integers(1, steps + 1, size=logit.shape[:3])
    gap = (np.arange(steps) >= length[..., None]) | (candidate < 0)[None, :, :, None]
    logit[gap], partition[gap] = np.nan, np.nan

    coordinates = {
        "model": [f"t5-{m}" for m in range(models)],
        "family": ("model", ["t5"] * models),
        "n_params": ("model", 1000 * 4 ** np.arange(models)),
        "n_train": ("model", np.full(models, 500)),
        "train_fraction": ("model", np.ones(models)),
        "train_flops": ("model", 1e9 * 4.0 ** np.arange(models)),
        "precision": ("model", ["fp32"] * models),
        "query": [f"q{q}" for q in range(queries)],
    }
    ranked = ("model", "query", "beam", "rank")
    search = xr.Dataset(
        {
            "doc": (ranked, doc),
            "score": (ranked, score),
            "flops": (ranked[:3], rng.random(doc.shape[:3]) * 1e9),
        },
        coords={**coordinates, "beam": list(beams)},
    )
    scored = ("model", "query", "candidate", "step")
    contrast = xr.Dataset(
        {
            "logit": (scored, logit),
            "log_partition": (scored, partition),
            "doc": (("query", "candidate"), candidate),
            "is_positive": (("query", "candidate"), is_positive),
            "relevance": (("query", "candidate"), relevance),
        },
        coords=coordinates,
    )
    return search, contrast


@pytest.fixture(scope="session")
def random_cube():
    """A function of a seed and sizes that gives (search, contrast), held in memory."""
    return _random_cube


@pytest.fixture(scope="session")
def document_ids():
    """Not in the order of their rows, so that ties broken by id would show."""
    return [f"d{(row * 17) % DOCUMENTS:02d}" for row in range(DOCUMENTS)]
