"""Measures equal plain loops and `ir_measures` on the written files."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import dask
import ir_measures
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Rprec, Success, nDCG

from genret_dask.errors import InputError
from genret_dask.metrics import (
    MEASURES,
    average_precision,
    gains,
    mrr,
    ndcg,
    ndcg_exp,
    r_precision,
    recall,
    success,
    write_qrels,
    write_run,
)

REFEREE = {
    recall: R,
    mrr: RR,
    ndcg: nDCG,
    ndcg_exp: nDCG(gains={1: 1, 2: 3, 3: 7}),
    average_precision: AP,
    success: Success,
}


def loop_value(measure, ranked, grades, k):
    """A measure of one list of documents; grades by relevant document."""
    hits = [grades.get(document, 0) for document in ranked[:k]]
    if measure is recall:
        return sum(grade > 0 for grade in hits) / len(grades)
    if measure is mrr:
        return next((1 / rank for rank, grade in enumerate(hits, 1) if grade), 0.0)
    if measure is success:
        return float(any(hits))
    if measure in (ndcg, ndcg_exp):
        ideal = sorted(grades.values(), reverse=True)[:k]
        dcg, best = (
            math.fsum(
                (grade if measure is ndcg else 2**grade - 1) / math.log2(rank + 1)
                for rank, grade in enumerate(grades_, 1)
            )
            for grades_ in (hits, ideal)
        )
        return dcg / best
    relevant = [rank for rank, grade in enumerate(hits, 1) if grade]
    return math.fsum(nth / rank for nth, rank in enumerate(relevant, 1)) / len(grades)


def lists(search, contrast):
    for m, q, b in np.ndindex(search["doc"].shape[:3]):
        row = search["doc"].values[m, q, b]
        candidates = zip(
            contrast["doc"].values[q].tolist(),
            contrast["relevance"].values[q].tolist(),
            strict=True,
        )
        yield (m, q, b), [int(d) for d in row if d >= 0], {d: r for d, r in candidates if r > 0}


@pytest.mark.parametrize("measure", REFEREE)
@pytest.mark.parametrize("k", [1, 2, 5, 10, 100])
def test_equals_a_loop(random_cube, measure, k):
    search, contrast = random_cube(k, documents=14)
    found = measure(search, contrast, k).transpose("model", "query", "beam").values
    expected = np.empty(found.shape)
    for place, ranked, grades in lists(search, contrast):
        expected[place] = loop_value(measure, ranked, grades, k)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)
    assert 0 < found.mean() < 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), documents=st.integers(8, 40), positives=st.integers(1, 6))
def test_r_precision_equals_a_loop(random_cube, seed, documents, positives):
    search, contrast = random_cube(
        seed, documents=documents + positives, positives=positives, negatives=3
    )
    found = r_precision(search, contrast).transpose("model", "query", "beam").values
    for place, ranked, grades in lists(search, contrast):
        first = ranked[: len(grades)]
        assert found[place] == sum(document in grades for document in first) / len(grades)


@settings(max_examples=40, deadline=None)
@given(
    grades=st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 4), min_size=1, max_size=6),
    order=st.permutations(range(6)),
    k=st.integers(1, 8),
)
def test_no_grade_is_too_high_for_the_exponential_gain(grades, order, k):
    ranked = [document for document in order if document < len(grades)]
    search, contrast = one_query(ranked, grades)
    found = ndcg_exp(search, contrast, k).item()
    if not any(grades):
        assert math.isnan(found)
        return
    highest = max(grades)
    gain = {d: Fraction(0) for d in ranked}
    for document, grade in enumerate(grades):
        if highest - grade < 1100:  # what is less than 2**-1100 of the highest is no float
            gain[document] = Fraction(2) ** (grade - highest) - Fraction(2) ** -min(highest, 1100)
    dcg, best = (
        math.fsum(float(one) / math.log2(rank + 1) for rank, one in enumerate(gains_[:k], 1))
        for gains_ in (
            [gain[document] for document in ranked],
            sorted(gain.values(), reverse=True),
        )
    )
    assert found == pytest.approx(dcg / best, rel=1e-12)


def one_query(ranked, grades):
    """A cube of one model, query and beam: what was ranked, and the grade of each document."""
    query = {"query": ["q"]}
    rows = np.arange(len(grades), dtype=np.int32)
    search = xr.Dataset(
        {"doc": (("model", "query", "beam", "rank"), np.array(ranked, np.int32)[None, None, None])},
        coords={"model": ["m"], **query, "beam": [1]},
    )
    contrast = xr.Dataset(
        {
            "doc": (("query", "candidate"), rows[None]),
            "relevance": (("query", "candidate"), np.array([grades], np.int32)),
        },
        coords=query,
    )
    return search, contrast


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_equals_ir_measures_on_the_written_files(random_cube, document_ids, tmp_path, seed, ties):
    search, contrast = random_cube(seed, documents=16, queries=9, ties=ties)
    assert (search["doc"] >= 0).sum("rank").min() == 0, "a query without results is wanted"
    qrels = list(
        ir_measures.read_trec_qrels(str(write_qrels(contrast, document_ids, tmp_path / "qrels")))
    )
    asked = {
        ours @ k: measure(search, contrast, k)
        for measure, ours in REFEREE.items()
        for k in (1, 5, 10, 100)
    } | {Rprec: r_precision(search, contrast)}
    for model in search["model"].values:
        for beam in search["beam"].values:
            path = write_run(search, document_ids, tmp_path / "run", model=model, beam=beam)
            run = list(ir_measures.read_trec_run(str(path)))
            count = 0
            # ir_measures computes a plain nDCG by the gains of another that is asked for beside it.
            own = [one for one in asked if one.params.get("gains")]
            others = [one for one in asked if one not in own]
            for item in itertools.chain(
                *(ir_measures.iter_calc(some, qrels, run) for some in (own, others))
            ):
                values = asked[item.measure]
                found = values.sel(model=model, beam=beam, query=item.query_id).item()
                assert found == pytest.approx(item.value, rel=1e-9), (item, model, beam)
                count += 1
            assert count == len(asked) * search.sizes["query"]


@settings(max_examples=20, deadline=None)
@given(data=st.data(), name=st.sampled_from(list(MEASURES)))
def test_chunked_equals_eager(random_cube, data, name):
    models, queries = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    cube = random_cube(data.draw(st.integers(0, 99)), models, queries, documents=12)
    chunked = [
        part.chunk({dim: data.draw(st.integers(1, n), dim) for dim, n in part.sizes.items()})
        for part in cube
    ]
    with dask.config.set(scheduler="sync"):
        xr.testing.assert_identical(MEASURES[name](*chunked).compute(), MEASURES[name](*cube))


@pytest.mark.parametrize("name", MEASURES)
def test_building_computes_nothing(random_cube, name):
    search, contrast = random_cube()

    def refuse(*args, **kwargs):
        raise AssertionError("computed while building")

    with dask.config.set(scheduler=refuse):
        lazy = MEASURES[name](search.chunk(model=1, query=2), contrast.chunk(query=6))
    assert dask.is_dask_collection(lazy)
    assert lazy.dims == ("model", "query", "beam")
    assert lazy.name == name


def test_gains_are_grades_at_the_ranks_of_relevant_documents(random_cube):
    search, contrast = random_cube(3, documents=12)
    found = gains(search, contrast).transpose("model", "query", "beam", "rank").values
    assert found.dtype == np.int32
    assert found.any()
    for place, ranked, grades in lists(search, contrast):
        expected = [grades.get(document, 0) for document in ranked]
        assert found[place].tolist() == expected + [0] * (found.shape[-1] - len(ranked))


def test_a_query_without_relevant_documents_is_not_evaluated(random_cube):
    search, contrast = random_cube()
    grades = contrast["relevance"].where(contrast["query"] != "q2", 0)
    contrast = contrast.assign(relevance=grades)
    for measure in MEASURES.values():
        values = measure(search, contrast)
        assert np.isnan(values.sel(query="q2")).all()
        assert values.drop_sel(query="q2").notnull().all()


def test_queries_must_be_the_same(random_cube):
    search, contrast = random_cube()
    with pytest.raises(ValueError, match="query"):
        recall(search, contrast.isel(query=slice(3)), 10)


def test_a_cut_off_of_zero_is_refused(random_cube):
    with pytest.raises(InputError, match="recall@0"):
        recall(*random_cube(), 0)
