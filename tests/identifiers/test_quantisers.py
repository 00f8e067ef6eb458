"""Every quantiser spreads vectors over cells in range, near ones together, and always the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.errors import DatasetError, SpecError
from genret_dask.identifiers.codes import build_cells
from genret_dask.identifiers.quantisers import base, kmeans
from genret_dask.identifiers.unique import make_unique
from genret_dask.identifiers.vectors import Vectors
from genret_dask.kinds import CodesIdentifiers
from genret_dask.specs import SweepSpec
from genret_dask.specs.registry import entry
from genret_dask.specs.validation import validate
from tests.conftest import make_collection, source_of

NAMES = ("rq", "kmeans", "pq")


def quantised(name: str, vectors: np.ndarray, levels: int, codes: int, seed: int = 0) -> np.ndarray:
    return entry("quantisers", name)().quantise(Vectors([vectors]), levels, codes, seed)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 90), st.integers(2, 6), st.integers(1, 5), st.integers(0, 9), st.booleans())
def test_cells_are_in_range_even_at_the_end_and_the_same_again(
    name, documents, codes, levels, seed, alike
):
    vectors = np.random.default_rng(seed).normal(size=(documents, 5)).astype(np.float32)
    vectors = np.round(vectors) if alike else vectors
    cells = quantised(name, vectors, levels, min(codes, documents), seed)
    assert cells.shape[0] == documents and 1 <= cells.shape[1] <= levels
    assert cells.min() >= 0 and cells.max() < min(codes, documents)
    np.testing.assert_array_equal(
        cells, quantised(name, vectors, levels, min(codes, documents), seed)
    )
    assert len(np.unique(make_unique(cells), axis=0)) == documents
    _, counts = np.unique(cells, axis=0, return_counts=True)
    _, below = np.unique(cells[:, :-1], axis=0, return_counts=True)
    assert counts.max() <= -(-below.max() // min(codes, documents))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("few", [0, 1024])
def test_the_first_level_puts_documents_of_a_cluster_together(name, few, monkeypatch):
    monkeypatch.setattr(kmeans, "FEW", few)
    rng = np.random.default_rng(0)
    centres = np.array([[1, 1, 0, 0], [1, -1, 0, 0], [-1, 1, 0, 0], [-1, -1, 0, 0]]) * 10.0
    vectors = np.repeat(centres, 10, axis=0) + rng.normal(size=(40, 4)) * 0.1
    # Of eight cells for four clusters: none holds documents of two, wherever k-means begins.
    cells = quantised(name, vectors.astype(np.float32), 2, 8)[:, 0].reshape(4, 10)
    assert all(not set(cells[one]) & set(cells[other]) for one in range(4) for other in range(one))


# --- hierarchical k-means -------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 90), st.integers(2, 6), st.integers(2, 5), st.sampled_from([0, 8, 1024]))
def test_small_clusters_are_numbered_and_large_ones_split(documents, codes, levels, few):
    vectors = np.random.default_rng(documents).normal(size=(documents, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kmeans, "FEW", few)
        cells = quantised("kmeans", vectors, levels, codes)
    for level in range(cells.shape[1]):
        prefixes, which = np.unique(cells[:, :level], axis=0, return_inverse=True)
        for prefix in range(len(prefixes)):
            mine = cells[which.ravel() == prefix, level]
            if len(mine) <= codes:
                assert mine.tolist() == list(range(len(mine)))
    if cells.shape[1] < levels:
        assert len(np.unique(cells, axis=0)) == documents


def test_clusters_split_together_are_those_split_alone(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 6)).astype(np.float32)
    together = quantised("kmeans", vectors, 3, 4)
    monkeypatch.setattr(kmeans, "_ROOM", 1)
    np.testing.assert_array_equal(quantised("kmeans", vectors, 3, 4), together)


def test_k_means_of_few_vectors_is_lloyds():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 20, 2)).astype(np.float32)
    inside = np.arange(20) < np.array([[20], [9], [13]])
    cells, centroids = kmeans._kmeans(rows, inside, rows[:, :4].copy())
    for one in range(3):
        mine, centre = rows[one, inside[one]], rows[one, :4].copy()
        for _ in range(base.ROUNDS):
            nearest = ((mine[:, None] - centre) ** 2).sum(-1).argmin(1)
            centre = np.stack(
                [
                    mine[nearest == c].mean(0) if (nearest == c).any() else centre[c]
                    for c in range(4)
                ]
            )
        np.testing.assert_array_equal(cells[one, inside[one]], nearest)
        np.testing.assert_allclose(centroids[one], centre, atol=1e-5)


# --- product quantisation -------------------------------------------------------------------------


def test_each_level_sees_its_part_alone():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(80, 5)).astype(np.float32)
    other = vectors.copy()
    other[:, 3:] = rng.normal(size=(80, 2))
    first, second = (quantised("pq", one, 3, 4) for one in (vectors, other))
    np.testing.assert_array_equal(first[:, :2], second[:, :2])  # of directions 0, and 1 and 2
    assert (first[:, 2] != second[:, 2]).any()


def test_more_levels_than_directions_are_refused_before_work():
    kind = CodesIdentifiers(levels=9, quantiser="pq", embedding={"kind": "tfidf", "dim": 8})
    assert [*kind.problems()] == [
        "identifiers codes: quantiser pq cuts an embedding into 9 levels, and it has 8 directions"
    ]
    assert not [*CodesIdentifiers(levels=9, embedding={"kind": "tfidf", "dim": 8}).problems()]
    vectors = Vectors([np.ones((4, 2), dtype=np.float32)])
    with pytest.raises(DatasetError, match="into 3 levels, and it has 2 directions"):
        build_cells(vectors, ["a", "b", "c", "d"], 3, 2, quantiser="pq")


# --- as a setting ---------------------------------------------------------------------------------


def test_the_default_leaves_fingerprints_as_they_are():
    settings = CodesIdentifiers().settings()
    assert "quantiser" not in settings and settings["levels"] == 3
    assert CodesIdentifiers(quantiser="pq").settings()["quantiser"] == "pq"


def test_an_unknown_quantiser_is_refused_with_those_there_are():
    with pytest.raises(SpecError, match="no quantiser 'vq'; expected one of kmeans, pq, rq"):
        validate(SweepSpec, {"identifiers": {"quantiser": "vq"}}, source="sweep.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_a_collection_gets_unique_codes(name):
    kind = CodesIdentifiers(levels=2, codes=4, quantiser=name)
    cells = kind.cells(source_of(make_collection(70)))
    assert len(np.unique(cells, axis=0)) == 70
    assert CodesIdentifiers(quantiser=name)._quantiser.compared(1000, 3, 32) > 0


def test_what_a_quantiser_takes_grows_with_documents_and_levels():
    for name in NAMES:
        compared = entry("quantisers", name)().compared
        assert 1000 < compared(1000, 1, 32) <= compared(1000, 3, 32) < compared(10**6, 3, 32)
    # Clusters of a level's cells or fewer are numbered, and compared with nothing.
    assert entry("quantisers", "kmeans")().compared(1000, 3, 32) == 2 * 26 * 1000
