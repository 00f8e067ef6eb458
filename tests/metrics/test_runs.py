"""Files in trec format keep the cube's order and are there whole or not at all."""

from __future__ import annotations

import os

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.errors import CubeError, DatasetError, GenretError, InputError
from genret_dask.metrics import write_qrels, write_run


def read(path):
    return [line.split(" ") for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("chunked", [False, True])
def test_run_holds_the_ranks_in_order(random_cube, document_ids, tmp_path, chunked):
    search, _ = random_cube(2)
    given_cube = search.chunk(model=1, query=2) if chunked else search
    path = write_run(given_cube, document_ids, tmp_path / "a/b/x.run", model="t5-1", beam=12)
    assert path == tmp_path / "a/b/x.run"
    docs = search["doc"].sel(model="t5-1", beam=12)
    expected = [
        [query, "Q0", document_ids[doc], str(rank), "t5-1-beam12"]
        for query in docs["query"].values
        for rank, doc in enumerate(docs.sel(query=query).values, 1)
        if doc >= 0
    ]
    assert expected
    assert [line[:4] + line[5:] for line in read(path)] == expected
    assert os.listdir(path.parent) == ["x.run"]


def test_scores_stay_near_and_order_survives_single_precision(random_cube, document_ids, tmp_path):
    search, _ = random_cube(5)
    path = write_run(search, document_ids, tmp_path / "run", model="t5-0", beam=12)
    score = search["score"].sel(model="t5-0", beam=12)
    ties = 0
    for query in search["query"].values:
        written = np.array([line[4] for line in read(path) if line[0] == query], dtype=np.float32)
        given_scores = score.sel(query=query).values
        given_scores = given_scores[~np.isnan(given_scores)]
        assert (np.diff(written) < 0).all()
        np.testing.assert_allclose(written, given_scores, rtol=1e-5)
        ties += int((np.diff(given_scores) == 0).sum())
    assert ties > 0


@settings(max_examples=30, deadline=None)
@given(
    scores=st.lists(
        st.floats(-1e4, 0, width=32) | st.sampled_from([-np.inf, -0.0, 0.0, -1e-45]),
        min_size=1,
        max_size=12,
    )
)
def test_any_scores_keep_their_order(random_cube, document_ids, tmp_path_factory, scores):
    search, _ = random_cube(1)
    search = search.copy(deep=True)
    place = {"model": "t5-0", "beam": 12, "query": "q0"}
    row = np.full(12, -1, dtype=np.int32)
    row[: len(scores)] = np.arange(len(scores))
    search["doc"].loc[place] = row
    search["score"].loc[place] = np.sort(scores + [-np.inf] * (12 - len(scores)))[::-1]
    path = tmp_path_factory.mktemp("run") / "run"
    write_run(search, document_ids, path, model="t5-0", beam=12)
    lines = [line for line in read(path) if line[0] == "q0"]
    assert [line[2] for line in lines] == document_ids[: len(scores)]
    assert (np.diff(np.array([line[4] for line in lines], dtype=np.float32)) < 0).all()


def test_qrels_hold_the_relevant_documents(random_cube, document_ids, tmp_path):
    _, contrast = random_cube(4)
    found = ir_measures.read_trec_qrels(
        str(write_qrels(contrast.chunk(query=2), document_ids, tmp_path / "qrels"))
    )
    expected = {
        (query, document_ids[doc], grade)
        for query, docs, grades in zip(
            contrast["query"].values,
            contrast["doc"].values,
            contrast["relevance"].values,
            strict=True,
        )
        for doc, grade in zip(docs, grades, strict=True)
        if grade > 0
    }
    assert {(line.query_id, line.doc_id, line.relevance) for line in found} == expected


def test_blanks_in_ids_are_escaped_alike(random_cube, document_ids, tmp_path):
    search, contrast = random_cube(0)
    names = [f"Ünï {name}\u00a0%" for name in document_ids]
    rename = {"query": [f"{query} ?" for query in search["query"].values]}
    run = write_run(
        search.assign_coords(rename), names, tmp_path / "run", model="t5-0", beam=12, tag="my run"
    )
    qrels = write_qrels(contrast.assign_coords(rename), names, tmp_path / "qrels")
    lines = list(ir_measures.read_trec_run(str(run)))
    assert {line.query_id for line in lines} <= {f"q{q}%20?" for q in range(6)}
    known = {f"Ünï%20{name}%C2%A0%" for name in document_ids}
    assert {line.doc_id for line in lines} <= known
    assert {line.doc_id for line in ir_measures.read_trec_qrels(str(qrels))} <= known
    assert {line[5] for line in read(run)} == {"my%20run"}


def test_ids_that_meet_when_escaped_are_refused(random_cube, document_ids, tmp_path):
    _, contrast = random_cube(0)
    names = ["a b", "c d", "c%20d", *document_ids[3:]]
    with pytest.raises(DatasetError, match="'c d' and 'c%20d'"):
        write_qrels(contrast, names, tmp_path / "qrels")
    assert not os.listdir(tmp_path)


def test_a_failed_write_leaves_the_old_file(random_cube, document_ids, tmp_path):
    search, contrast = random_cube(0)
    path = tmp_path / "run"
    path.write_text("old")
    with pytest.raises(CubeError, match="document row"):
        write_run(search, document_ids[:3], path, model="t5-0", beam=12)
    unscored = search.assign(score=search["score"] * np.nan)
    with pytest.raises(CubeError, match="without a score"):
        write_run(unscored, document_ids, path, model="t5-0", beam=12)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run"]
    with pytest.raises(GenretError, match="cannot write"):
        write_qrels(contrast, document_ids, path / "qrels")


@pytest.mark.parametrize(
    "labels", [{"model": "t6", "beam": 3}, {"model": "t5-0", "beam": 4}], ids=["model", "beam"]
)
def test_unknown_labels_are_refused(random_cube, document_ids, tmp_path, labels):
    search, _ = random_cube(0)
    known = "t5-0, t5-1" if labels["model"] == "t6" else "1, 3, 12"
    with pytest.raises(InputError, match=known):
        write_run(search, document_ids, tmp_path / "run", **labels)
