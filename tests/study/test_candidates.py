"""Negatives are uniform, distinct, never relevant, and the query's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genret_dask.datasets.checks import check_usable
from genret_dask.errors import DatasetError
from genret_dask.specs import PairsSpec
from genret_dask.study.candidates import build_candidates, sample_negatives, select_queries
from tests.conftest import make_collection


@given(st.data(), st.integers(1, 60), st.integers(0, 80), st.integers(0, 5))
def test_negatives_are_distinct_and_not_relevant(data, documents, count, seed):
    positives = np.array(
        data.draw(st.lists(st.integers(0, documents - 1), unique=True, max_size=documents)), int
    )
    found = sample_negatives(documents, positives, count, seed, "q")
    assert len(found) == min(count, documents - len(positives)) == len(set(found.tolist()))
    assert not set(found.tolist()) & set(positives.tolist())
    assert ((found >= 0) & (found < documents)).all()


def test_every_other_document_is_equally_likely():
    positives = np.array([2, 5, 6])
    counts = np.bincount(
        np.concatenate([sample_negatives(10, positives, 2, 0, f"q{i}") for i in range(7000)]),
        minlength=10,
    )
    assert (counts[positives] == 0).all()
    others = np.delete(counts, positives)
    assert abs(others - 2000).max() < 5 * np.sqrt(2000)


def test_a_query_keeps_its_negatives_in_any_company():
    collection = make_collection()
    qrels = collection.qrels["test"]
    rows = select_queries(collection, "test", None, 0)
    together = build_candidates(collection, qrels, rows, 7, 0)
    alone = build_candidates(collection, qrels, rows[3:4], 7, 0)
    np.testing.assert_array_equal(together["doc"][3], alone["doc"][0])
    assert together["is_positive"][:, 0].all() and not together["is_positive"][:, 1:].any()
    other = build_candidates(collection, qrels, rows, 7, 1)
    assert (other["doc"][:, 1:] != together["doc"][:, 1:]).any()


def test_a_small_corpus_gives_every_document():
    collection = make_collection(5)
    rows = select_queries(collection, "test", None, 0)
    doc = build_candidates(collection, collection.qrels["test"], rows, 256, 0)["doc"]
    assert (np.sort(doc, axis=1) == np.arange(5)).all()


def test_a_sample_of_the_queries_is_seeded_and_nested():
    collection = make_collection()
    first = select_queries(collection, "test", 5, 0)
    whole = select_queries(collection, "test", None, 0)
    assert whole[:5].tolist() == first.tolist()
    assert sorted(whole) == np.unique(collection.qrels["test"].query).tolist()
    np.testing.assert_array_equal(first, select_queries(collection, "test", 5, 0))
    assert first.tolist() != select_queries(collection, "test", 5, 1).tolist()


def test_a_split_without_judgements_is_named():
    from dataclasses import replace

    from genret_dask.datasets.collection import Qrels

    collection = make_collection()
    empty = replace(collection, qrels={**collection.qrels, "dev": Qrels.from_rows([], [], [])})
    with pytest.raises(DatasetError, match="dev split"):
        check_usable(empty, "dev", PairsSpec())
