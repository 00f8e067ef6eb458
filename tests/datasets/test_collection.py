"""The collection's own checks and its summary."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from genret_dask.datasets import Collection, Qrels, summary
from genret_dask.errors import DatasetError

NONE = Qrels.from_rows([], [], [])


@pytest.fixture
def small() -> Collection:
    return Collection(
        name="small",
        version="1",
        document_ids=("d0", "d1", "d2"),
        titles=("", "Two words", ""),
        texts=("a b c", "d", ""),
        query_ids=("q0", "q1", "q2", "q3"),
        queries=("x", "y y", "z", ""),
        qrels={
            "train": Qrels.from_rows([0, 1], [0, 0], [1, 0]),
            "dev": NONE,
            "test": Qrels.from_rows([0, 2, 2], [1, 0, 2], [1, 2, 1]),
        },
        answers={"q0": ("a",)},
    )


def test_summary_counts(small):
    facts = summary(small)
    assert facts["documents"] == 3 and facts["queries"] == 4
    assert facts["splits"]["train"] == {
        "queries": 2,
        "judgements": 2,
        "relevant": 1,
        "documents": 1,
    }
    assert facts["splits"]["dev"] == {"queries": 0, "judgements": 0, "relevant": 0, "documents": 0}
    assert facts["splits"]["test"]["documents"] == 3
    assert facts["words"] == {"document": 2.0, "query": 1.0}
    assert facts["queries_with_answers"] == 1
    assert facts["queries_without_qrels"] == 2  # q1 is judged irrelevant only, q3 not at all
    assert facts["queries_in_two_splits"] == 1
    assert facts["documents_without_text"] == 1 and facts["queries_without_text"] == 1
    assert facts["documents_without_train_query"] == 2
    assert facts["test_documents_without_train_query"] == 2


def test_qrels_keep_the_higher_grade_in_row_order():
    qrels = Qrels.from_rows([1, 0, 1, 1], [5, 2, 5, 3], [1, 1, 3, 0])
    assert [(q, d.tolist(), r.tolist()) for q, d, r in qrels.by_query()] == [
        (0, [2], [1]),
        (1, [3, 5], [0, 3]),
    ]
    assert qrels.relevant().document.tolist() == [2, 5]
    assert qrels.query.dtype == np.int32


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"document_ids": (), "titles": (), "texts": ()}, DatasetError, "no documents"),
        ({"document_ids": ("d0", "d1", "d1")}, DatasetError, "'d1' more than once"),
        ({"query_ids": ("q0", "q2", "q2", "q1")}, DatasetError, "query id 'q2'"),
        ({"document_ids": ("d0", "", "d1")}, DatasetError, "document id ''"),
        ({"query_ids": ("q0", "q\t2", "q2", "q1")}, DatasetError, r"query id 'q\\t2'"),
        ({"texts": ("a", "\ud800", "b")}, DatasetError, "row 1"),
        ({"titles": ("a",)}, ValueError, "differ in length"),
        ({"answers": {"nobody": ("a",)}}, ValueError, "unknown query"),
        ({"query_ids": ("q0",), "queries": ("x",)}, ValueError, "qrels train"),
    ],
)
def test_refuses(small, change, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(small, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"texts": ("a b c", "d", ".")},
        {"titles": ("", "Two word", "s")},
        {"queries": ("x", "y y", "z", "!")},
        {"answers": {}},
        {"qrels": {"train": NONE, "dev": NONE, "test": NONE}},
    ],
)
def test_content_hash_sees_every_column(small, change):
    assert dataclasses.replace(small, **change).content_hash != small.content_hash
    assert dataclasses.replace(small, name="other").content_hash == small.content_hash
