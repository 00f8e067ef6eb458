"""Answer hits equal a plain search of each ranked text, and success where DPR's rule judges."""

from __future__ import annotations

import json
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.datasets import BeirDataset, DprDataset
from genret_dask.datasets.base import Dataset
from genret_dask.datasets.columns import Strings
from genret_dask.datasets.dpr import tokenize
from genret_dask.errors import CubeError, InputError
from genret_dask.metrics import answer_hits, success
from genret_dask.metrics.reported import measure_of, measures_of
from genret_dask.storage.artefacts import publishing
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.layout import TEXTS

WORDS = ("Paris", "paris", "New", "York", "U.S.", "café", "cafe\u0301", "in", "1999", "Straße")


def stored_at(dataset: Dataset, folder: Path) -> Path:
    """The collection of a dataset as a run directory has it."""
    collection = dataset.load(folder / "columns")
    origin = Origin("collection", {"of": collection.content_hash})
    with publishing(folder / "collection", origin, content_hash=collection.content_hash) as partial:
        (folder / "columns").rename(partial / TEXTS)
    return folder / "collection"


def dpr(folder: Path, passages: list[str], answers: list[list[str]]) -> tuple[Path, DprDataset]:
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{row}\t{text}\tParis\n" for row, text in enumerate(passages))
    (folder / "passages.tsv").write_text(rows, encoding="utf-8")
    asked = "".join(f"question\t{strings!r}\n" for strings in answers)
    (folder / "test.csv").write_text(asked, encoding="utf-8")
    dataset = DprDataset(passages=folder / "passages.tsv", test=folder / "test.csv")
    return stored_at(dataset, folder), dataset


def cube_of(collection, seed: int, models: int = 2, beams: tuple[int, ...] = (1, 3)):
    """Random rankings over a collection, and its own judgements."""
    rng = np.random.default_rng(seed)
    names, documents = list(collection.query_ids), len(collection)
    doc = np.full((models, len(names), len(beams), max(beams)), -1, np.int32)
    for m, q, b in np.ndindex(doc.shape[:3]):
        found = min(int(rng.integers(0, beams[b] + 1)), documents)
        doc[m, q, b, :found] = rng.permutation(documents)[:found]
    relevance = np.zeros((len(names), documents), np.int32)
    qrels = collection.qrels["test"]
    relevance[qrels.query, qrels.document] = qrels.relevance
    search = xr.Dataset(
        {"doc": (("model", "query", "beam", "rank"), doc)},
        coords={"model": [f"m{m}" for m in range(models)], "query": names, "beam": list(beams)},
    )
    candidates = np.broadcast_to(np.arange(documents, dtype=np.int32), relevance.shape)
    contrast = xr.Dataset(
        {
            "doc": (("query", "candidate"), candidates),
            "relevance": (("query", "candidate"), relevance),
        },
        coords={"query": names},
    )
    return search, contrast


def holds(text: str, answers: tuple[str, ...]) -> bool:
    """DPR's has_answer: some answer's tokens stand in a row in the text."""
    tokens = tokenize(text)
    for answer in answers:
        wanted = tokenize(answer)
        starts = range(len(tokens) - len(wanted) + 1) if wanted else ()
        if any(tokens[start : start + len(wanted)] == wanted for start in starts):
            return True
    return False


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
asked = st.lists(st.lists(st.sampled_from(WORDS), max_size=2).map(" ".join), max_size=2)


@settings(max_examples=25, deadline=None)
@given(
    passages=st.lists(texts, min_size=1, max_size=8),
    answers=st.lists(asked, min_size=1, max_size=5),
    seed=st.integers(0, 99),
    k=st.integers(1, 4),
)
def test_a_hit_is_what_a_loop_finds_and_what_dpr_judges(
    tmp_path_factory, passages, answers, seed, k
):
    folder, dataset = dpr(tmp_path_factory.mktemp("dpr"), passages, answers)
    collection = dataset.load()
    search, contrast = cube_of(collection, seed)
    found = answer_hits(search, contrast, k, folder)
    assert found.dims == ("model", "query", "beam")
    for place in np.ndindex(found.shape):
        ranked = search["doc"].values[place][:k]
        strings = collection.answers.get(collection.query_ids[place[1]], ())
        hit = any(holds(collection.texts[row], strings) for row in ranked if row >= 0)
        np.testing.assert_equal(found.values[place], float(hit) if strings else np.nan)
    judged = success(search, contrast, k)
    there = judged.notnull()
    assert (found.where(there).fillna(-1) == judged.fillna(-1)).all()
    assert not found.where(~there, 0).fillna(0).any()  # no passage at all has an answer


@pytest.fixture
def run(tmp_path) -> Path:
    """A BEIR folder's collection: answers for two of three queries, judgements of others."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    texts = ["Paris is old", "in New York", "the sea", "new york again", "nothing"]
    lines = {
        "corpus": [
            {"_id": f"d{row}", "title": "sea", "text": text} for row, text in enumerate(texts)
        ],
        "queries": [{"_id": f"q{row}", "text": "where?"} for row in range(3)],
        "answers": [{"_id": "q0", "answers": ["new york"]}, {"_id": "q1", "answers": ["sea"]}],
    }
    for name, records in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    (folder / "qrels" / "test.tsv").write_text("q0\td0\t1\nq1\td2\t1\nq2\td4\t1\n")
    stored_at(BeirDataset(path=folder), tmp_path)
    return tmp_path


def searched(run: Path, rows: list[list[int]]):
    search, contrast = cube_of(BeirDataset(path=run / "beir").load(), 0, models=1, beams=(3,))
    return search.assign(
        doc=(search["doc"].dims, np.array(rows, np.int32)[None, :, None])
    ), contrast


def test_answers_and_judgements_are_two_things(run):
    both = searched(run, [[0, 3, -1], [0, 1, 4], [4, -1, -1]])
    hits = answer_hits(*both, 2, run / "collection").values.ravel()
    np.testing.assert_equal(hits, [1.0, 0.0, np.nan])  # the title "sea" does not count
    np.testing.assert_equal(success(*both, 2).values.ravel(), [1.0, 0.0, 1.0])
    assert answer_hits(*both, 1, run / "collection").values.ravel()[0] == 0


def test_each_text_that_was_retrieved_is_read_once_and_no_other(run, monkeypatch):
    search, contrast = searched(run, [[0, 3, -1], [3, 0, 1], [3, -1, -1]])
    lazy = answer_hits(search.chunk(model=1), contrast, 3, run / "collection")
    read, get = [], Strings.__getitem__

    def noted(self, row):
        read.append(row)
        return get(self, row)

    monkeypatch.setattr(Strings, "__getitem__", noted)
    with dask.config.set(scheduler="sync"):
        lazy.compute()
    assert sorted(read) == [0, 1, 3]


def test_chunks_change_nothing_and_building_computes_nothing(run):
    search, contrast = searched(run, [[0, 3, -1], [3, 0, 1], [3, -1, -1]])
    eager = answer_hits(search, contrast, 2, run / "collection")

    def refuse(*args, **kwargs):
        raise AssertionError("computed while building")

    for queries in (1, 2, 3):
        with dask.config.set(scheduler=refuse):
            lazy = answer_hits(search.chunk(query=queries), contrast, 2, run / "collection")
        xr.testing.assert_identical(lazy.compute(scheduler="sync"), eager)


def test_a_row_that_is_not_the_collections_is_refused(run):
    both = searched(run, [[0, 5, -1], [3, 0, 1], [3, -1, -1]])
    with pytest.raises(CubeError, match="document row 5"):
        answer_hits(*both, 3, run / "collection")


def test_a_cube_has_answer_hits_where_its_run_has_answers(run):
    tree = xr.DataTree()
    assert "answer_hits@20" not in measures_of(tree)
    with pytest.raises(InputError, match="no metric 'answer_hits@20'"):
        measure_of(tree, "answer_hits@20")
    tree.encoding["source"] = str(run / "cube.zarr")
    assert {"answer_hits@1", "answer_hits@20"} <= set(measures_of(tree))
    both = searched(run, [[0, 3, -1], [0, 1, 4], [4, -1, -1]])
    assert measure_of(tree, "answer_hits@2")(*both).sum() == 1
    (run / "collection" / TEXTS / "queries.arrow").write_bytes(b"damaged")
    assert "answer_hits@20" not in measures_of(tree)
