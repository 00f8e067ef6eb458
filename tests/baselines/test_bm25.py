"""BM25 is a plain loop's, and rankings keep what they say."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.baselines import Bm25Baseline, Rankings
from genret_dask.datasets import Collection
from genret_dask.datasets.words import terms
from genret_dask.errors import NumericError
from tests.conftest import make_collection
from tests.strategies import TEXTS, collections


def plain_bm25(collection: Collection, query: str, k1: float, b: float) -> np.ndarray:
    """Score every document of a collection, in the precision of the library; float32."""
    documents = [*map(terms, collection.documents())]
    mean = sum(map(len, documents)) / len(documents)
    holding = Counter(word for words in documents for word in {*words})
    scores = np.zeros(len(documents), dtype=np.float32)
    for word in terms(query):
        n = holding[word]
        idf = np.float32(math.log(1 + (len(documents) - n + 0.5) / (n + 0.5)))
        for row, words in enumerate(documents):
            if tf := words.count(word):
                length = k1 * ((1 - b) + b * len(words) / mean)
                scores[row] += np.float32(float(idf) * (tf / (length + tf)))
    return scores


def ranked(collection: Collection, baseline: Bm25Baseline, rows, depth: int = 100) -> Rankings:
    found = Rankings(depth, np.full(len(rows), -1))
    baseline.rank(collection, np.asarray(rows), found, lambda share: None)
    return found


def check(collection: Collection, baseline: Bm25Baseline, rows: range, depth: int) -> None:
    found = ranked(collection, baseline, rows, depth)
    for row in rows:
        scores = plain_bm25(collection, collection.queries[row], baseline.k1, baseline.b)
        order = np.argsort(-scores, kind="stable")
        best = order[scores[order] > 0][:depth]
        assert found.doc[row, : len(best)].tolist() == best.tolist()
        np.testing.assert_array_equal(found.score[row, : len(best)], scores[best])
        assert (found.doc[row, len(best) :] == -1).all()
        assert np.isnan(found.score[row, len(best) :]).all()


@pytest.mark.parametrize("k1, b", [(0.9, 0.4), (1.5, 0.75), (0, 1), (2, 0)])
def test_it_equals_a_plain_loop(k1, b):
    """Words are drawn from few, so that documents tie and queries repeat words."""
    collection = make_collection(200, seed=3)
    rng = np.random.default_rng(0)
    words = [f"W{one}" for one in range(30)]
    drawn = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(800)]
    collection = replace(collection, titles=drawn[:200], texts=drawn[200:400], queries=drawn[400:])
    check(collection, Bm25Baseline(k1=k1, b=b), range(60), depth=200)


@settings(max_examples=40, deadline=None)
@given(collections(), st.lists(TEXTS, min_size=1, max_size=3), st.integers(1, 4))
def test_it_equals_a_plain_loop_on_any_text(collection, texts, depth):
    queries = [f"{one} {texts[row % len(texts)]}" for row, one in enumerate(collection.texts)]
    ids = tuple(f"q{row}" for row in range(len(queries)))
    none = {split: one.from_rows([], []) for split, one in collection.qrels.items()}
    collection = replace(collection, query_ids=ids, queries=queries, qrels=none, answers={})
    check(collection, Bm25Baseline(), range(len(queries)), depth)


def test_equal_documents_rank_by_row():
    collection = make_collection(4)
    collection = replace(collection, texts=("a b", "a", "a b", "a b"), queries=("b A",) * 8)
    assert ranked(collection, Bm25Baseline(), [0]).doc[0, :4].tolist() == [0, 2, 3, 1]


def test_a_query_without_a_known_word_finds_nothing():
    collection = replace(make_collection(4), queries=("nothing of this", "", *["w1"] * 6))
    assert (ranked(collection, Bm25Baseline(), [0, 1]).doc == -1).all()


def test_rankings_leave_out_a_querys_own_document_and_those_that_are_not_searched():
    found = Rankings(2, np.array([3, -1]), within=np.array([1, 3, 5]))
    for place in (0, 1):
        found.add(place, np.array([1, 2, 3]), np.array([0.1, 0.9, 0.5]))
        found.add(place, np.array([4, 5]), np.array([2, 0.5]))
    assert found.doc.tolist() == [[5, 1], [3, 5]]
    np.testing.assert_allclose(found.score, [[0.5, 0.1], [0.5, 0.5]])


def test_a_score_that_is_no_number_is_an_error():
    with pytest.raises(NumericError, match="1 scores of query 0 are NaN"):
        Rankings(2, np.array([-1])).add(0, np.array([1, 2]), np.array([np.nan, 1]))


def test_the_library_is_imported_when_it_ranks():
    code = "from genret_dask.specs import SweepSpec; import sys; SweepSpec().baselines_for(1); "
    code += "sys.exit('bm25s' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
