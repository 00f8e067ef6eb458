"""Codes of documents that are added: against the plain rule, document by document."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.errors import DatasetError
from genret_dask.identifiers import Codes
from genret_dask.identifiers.added import added_cells
from genret_dask.identifiers.quantisers.pq import ProductQuantiser
from genret_dask.identifiers.quantisers.rq import ResidualQuantiser
from genret_dask.identifiers.unique import make_unique
from genret_dask.identifiers.vectors import Vectors

QUANTISERS = {"rq": ResidualQuantiser, "pq": ProductQuantiser}


def known_codes(name, documents, levels, codes, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(documents, 6)).astype(np.float32)
    quantiser = QUANTISERS[name]()
    cells = quantiser.quantise(Vectors([vectors]), levels, min(codes, documents), seed)
    return Codes.of_cells(make_unique(cells)), quantiser, rng


def nearest_cells(name, centroids, sizes, vector):
    """The plain rule: level by level, of the cells that a model has a token for."""
    cells, left, first = [], vector.astype(np.float64), 0
    for level, one in enumerate(centroids):
        part = left if name == "rq" else left[first : first + one.shape[1]]
        distances = ((one[: sizes[level]] - part) ** 2).sum(axis=1)
        cells.append(int(distances.argmin()))
        left = left - one[cells[-1]] if name == "rq" else left
        first += one.shape[1]
    return cells


@pytest.mark.parametrize("name", QUANTISERS)
@settings(max_examples=40, deadline=None)
@given(
    documents=st.integers(2, 60),
    added=st.integers(1, 12),
    levels=st.integers(1, 3),
    codes=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_identifiers_are_unique_fit_the_vocabulary_and_are_near(
    name, documents, added, levels, codes, seed
):
    known, quantiser, rng = known_codes(name, documents, levels, codes, seed)
    vectors = rng.normal(size=(added, 6)).astype(np.float32)
    most = known.level_sizes[levels] if known.length > levels else 1
    if documents + added > most * np.prod(known.level_sizes[:levels]):
        with pytest.raises(DatasetError, match="all are given"):
            added_cells(known, vectors, quantiser.centroids, quantiser)
        return
    cells = added_cells(known, vectors, quantiser.centroids, quantiser)
    every = np.concatenate([known.codes, cells])
    assert len(np.unique(every, axis=0)) == len(every)
    assert cells.shape[1] == known.length and (cells.max(axis=0) < known.level_sizes).all()
    # Cells are the nearest, where there is room for all.
    held = [tuple(one) for one in known.codes[:, :levels].tolist()]
    for vector, found in zip(vectors, cells[:, :levels].tolist(), strict=True):
        wanted = nearest_cells(name, quantiser.centroids, known.level_sizes, vector)
        if held.count(tuple(wanted)) + added <= most:
            assert found == wanted


@pytest.mark.parametrize("name", QUANTISERS)
def test_the_documents_themselves_get_the_cells_that_they_have(name):
    """Without the even spread of the last level, which moves some."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 6)).astype(np.float32)
    quantiser = QUANTISERS[name]()
    cells = quantiser.quantise(Vectors([vectors]), 3, 3, seed=0)
    roomy = Codes(np.column_stack([cells, np.arange(40)]).astype(np.int32), (3, 3, 3, 99))
    found = added_cells(roomy, vectors, quantiser.centroids, quantiser)
    assert (found[:, :2] == cells[:, :2]).all()


def test_cells_that_are_full_leave_the_next_nearest_level_by_level():
    known = Codes(np.array([[0, 0], [0, 1], [1, 0]], dtype=np.int32), (2, 2))
    quantiser = ResidualQuantiser()
    centroids = [np.array([[0.0], [10.0]], np.float32), np.array([[0.0], [1.0]], np.float32)]

    def added(*values):
        vectors = np.array(values, np.float32)[:, None]
        return added_cells(known, vectors, centroids, quantiser).tolist()

    assert added(10.0) == [[1, 1]]  # cell 0 below 1 is taken
    assert added(0.0) == [[1, 1]]  # both cells below 0 are
    with pytest.raises(DatasetError, match="2 added documents find no codes: all are given"):
        added(0.0, 10.0)
