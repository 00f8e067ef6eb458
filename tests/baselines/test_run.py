"""Run files of other systems are read as trec tools read them, and refused where they are wrong."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.baselines import Rankings, RunBaseline
from genret_dask.errors import DatasetError
from genret_dask.metrics import write_run
from tests.conftest import make_collection


def write(path: Path, *lines: str) -> RunBaseline:
    text = "".join(f"{line}\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return RunBaseline(path=path)


def ranked(baseline: RunBaseline, collection, rows, depth: int = 5) -> Rankings:
    found = Rankings(depth, np.full(len(rows), -1))
    baseline.rank(collection, np.asarray(rows), found, lambda share: None)
    return found


@pytest.mark.parametrize("name", ["other.trec", "other.trec.gz"])
def test_documents_stand_by_score_and_then_by_descending_id(tmp_path, name):
    lines = ["q2 Q0 d3 1 0.5 x", "q2 Q0 d10 9 2e0 x", "q1 Q0 d0 1 1 x", "q2 Q0 d5 2 0.5 x"]
    baseline = write(tmp_path / name, *lines, "", "unasked Q0 d1 1 3 x")
    assert baseline.label == "other"
    found = ranked(baseline, make_collection(), [1, 2, 0])
    assert found.doc[:, :4].tolist() == [[0, -1, -1, -1], [10, 5, 3, -1], [-1] * 4]
    assert found.score[1, :3].tolist() == [2, 0.5, 0.5]


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.sampled_from([0, -1.5, 3, 3.0000001, 1e-9]), min_size=1, max_size=8))
def test_the_order_is_that_of_trec_eval(scores, tmp_path_factory):
    """By measures that see every rank: each document's place by a judgement of it alone."""
    collection = make_collection(12)
    path = tmp_path_factory.mktemp("run") / "run"
    baseline = write(path, *(f"q0 Q0 d{row} 1 {one!r} x" for row, one in enumerate(scores)))
    found = ranked(baseline, collection, [0], depth=8)
    for rank, row in enumerate(found.doc[0, : len(scores)].tolist(), 1):
        qrels = [ir_measures.Qrel("q0", f"d{row}", 1)]
        run = ir_measures.read_trec_run(str(path))
        value = ir_measures.calc_aggregate([ir_measures.RR], qrels, run)[ir_measures.RR]
        assert value == pytest.approx(1 / rank)


def test_what_this_package_writes_is_read_back(tmp_path):
    """Blanks in ids are written as in a URL."""
    collection = replace(make_collection(4), document_ids=("a b", "a%20c", "d\u3000e", "f"))
    collection = replace(collection, query_ids=("x y", *(f"q{row}" for row in range(7))))
    doc = np.array([[2, 0, 1, -1], [3, 1, -1, -1]], dtype=np.int32)
    score = np.where(doc < 0, np.nan, [[4, 3, 2, 1]]).astype(np.float32)
    dims = ("model", "query", "beam", "rank")
    arrays = {"doc": (dims, doc[None, :, None]), "score": (dims, score[None, :, None])}
    coords = {"model": ["m"], "query": ["x y", "q3"], "beam": [4]}
    search = xr.Dataset(arrays, coords=coords)
    path = write_run(search, collection.document_ids, tmp_path / "m.run", model="m", beam=4)
    found = ranked(RunBaseline(path=path), collection, [0, 4], depth=4)
    np.testing.assert_array_equal(found.doc, doc)
    np.testing.assert_array_equal(found.score, score)


@pytest.mark.parametrize(
    "lines, message",
    [
        (["q1 Q0 d1 1 2 x", "q1 Q0 an id 1 2 x"], r"run, line 2: 7 fields"),
        (["q1 Q0 d1 1"], r"line 1: 4 fields"),
        (["q1 Q0 d1 1 high x"], r"line 1: the score 'high'"),
        (["q1 Q0 d1 1 nan x"], r"line 1: the score 'nan'"),
        (["q1 Q0 d1 1 1e39 x"], r"line 1: the score '1e39'"),
        (
            ["q1 Q0 d1 1 2 x", "q2 Q0 d1 1 2 x", "q1 Q0 d1 2 1 x", "q1 Q0 d1 3 1 x"],
            r"line 3: document d1 again for query q1, as in line 1",
        ),
        ([""], "holds no line"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, lines, message):
    with pytest.raises(DatasetError, match=message):
        list(write(tmp_path / "run", *lines).refusals(make_collection()))


def test_what_the_collection_lacks_is_refused_and_what_the_file_lacks_is_said(tmp_path):
    collection = make_collection(4)
    lines = [f"q1 Q0 e{row} 1 {row} x" for row in range(5)]
    (refusal,) = write(tmp_path / "run", *lines, "q1 Q0 d1 1 9 x").refusals(collection)
    assert "names 5 documents that the collection lacks: e0, e1, e2, and 2 more" in refusal
    (refusal,) = write(tmp_path / "other", "topic-1 Q0 d1 1 9 x").refusals(collection)
    assert "names none of the collection's queries, but topic-1" in refusal
    baseline = write(tmp_path / "good", "q1 Q0 d1 1 9 x")
    assert not [*baseline.refusals(collection)]
    (remark,) = baseline.remarks(collection, np.array([0, 1, 3]))
    assert "lacks 2 of the 3 queries" in remark
    assert not [*baseline.remarks(collection, np.array([1]))]


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path):
    (tmp_path / "other.trec").write_text("q1 Q0 d1 1 9 x\n")
    with pytest.raises(DatasetError, match=r"cannot be read: .*did you mean other\.trec\?"):
        RunBaseline(path=tmp_path / "ohter.trec").settings()
    whole = gzip.compress(b"q1 Q0 d1 1 9 x\n" * 100)
    (tmp_path / "cut.gz").write_bytes(whole[:-9])
    with pytest.raises(DatasetError, match="damaged"):
        list(RunBaseline(path=tmp_path / "cut.gz").refusals(make_collection()))
