"""Collections of 1 to 12 documents (B1, B2): each sweeps to the end, or is refused before any work.

Pieces are held against plain loops over many collections, whole sweeps over a few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask import open_cube
from genret_dask.datasets.checks import check_usable
from genret_dask.datasets.collection import SPLITS, Collection, Qrels
from genret_dask.errors import DatasetError
from genret_dask.identifiers import Codes
from genret_dask.inference import beam
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.own import own_documents
from genret_dask.inference.score import score
from genret_dask.kinds import CodesIdentifiers
from genret_dask.metrics import cgl, recall
from genret_dask.specs import PairsSpec
from genret_dask.study.candidates import build_candidates, count_negatives, select_queries
from genret_dask.study.sweep import Study
from genret_dask.study.template import group_sizes
from tests.conftest import source_of
from tests.findings.conftest import tiny_spec, write_collection
from tests.inference.test_beam import TableSession, pad

WORDS = ("ice", "fire", "the", "of", "north", "sea", "1800", "é", "x")
KINDS = {
    "codes": {"kind": "codes", "levels": 2, "codes": 4},
    "ngrams": {"kind": "ngrams", "spans": 2, "max_tokens": 3, "allow_unreachable": True},
}


@dataclass(frozen=True)
class Drawn:
    """A random collection and the settings of its sweep."""

    documents: list[str]
    queries: dict[str, str]
    qrels: dict[str, list[tuple[str, str, int]]]
    beams: list[int]
    negatives: int
    levels: int
    codes: int

    def collection(self) -> Collection:
        names = list(self.queries)
        rows = {
            split: [
                (names.index(q), int(d[1:]), grade) for q, d, grade in self.qrels.get(split, [])
            ]
            for split in SPLITS
        }
        count = len(self.documents)
        return Collection(
            name="drawn",
            version="1",
            document_ids=tuple(f"d{row}" for row in range(count)),
            titles=("",) * count,
            texts=tuple(self.documents),
            query_ids=tuple(names),
            queries=tuple(self.queries.values()),
            qrels={
                split: Qrels.from_rows(*([row[i] for row in found] for i in range(3)))
                for split, found in rows.items()
            },
        )


def draw(seed: int) -> Drawn:
    """Texts of few words, so that they repeat; some are empty; ids of queries may be documents'."""
    rng = np.random.default_rng(seed)

    def text(least: int) -> str:
        return " ".join(rng.choice(WORDS, rng.integers(least, 7)))

    documents = [text(int(rng.random() > 0.15)) for _ in range(rng.integers(1, 13))]
    names = [f"{rng.choice(['d', 'q'])}{row}" for row in range(rng.integers(1, 6))]
    queries = {name: text(0) for name in names}
    for name in names:
        if name[0] == "d" and int(name[1:]) < len(documents) and rng.random() < 0.7:
            queries[name] = documents[int(name[1:])]
    judged = [(n, f"d{d}", int(rng.integers(0, 3))) for n in names for d in range(len(documents))]
    qrels = {
        split: [one for one in judged if rng.random() < share]
        for split, share in (("train", 0.2), ("dev", 0.1), ("test", 0.4))
        if split == "test" or rng.random() < 0.6
    }
    beams = sorted({int(one) for one in rng.choice([1, 2, 3, 5, 13, 100], rng.integers(1, 4))})
    return Drawn(
        documents,
        queries,
        qrels,
        beams,
        negatives=int(rng.choice([1, 2, 5, 256])),
        levels=int(rng.integers(1, 4)),
        codes=int(rng.choice([2, 3, 40])),
    )


def plain_recall(ranked: list[int], relevant: set[int], k: int) -> float:
    return len(relevant & set(ranked[:k])) / len(relevant)


def plain_cgl(losses: dict[int, float], relevant: set[int]) -> float:
    total = sum(loss for document, loss in losses.items() if document not in relevant)
    if not set(losses) - relevant:
        return math.nan
    best = min(losses[document] for document in relevant)
    return -math.log(total / (total + best))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pieces_are_those_of_a_plain_loop(seed):
    check_pieces(seed)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pieces_of_many_are_those_of_a_plain_loop(seed):
    check_pieces(seed)


def check_pieces(seed: int) -> None:
    drawn = draw(seed)
    collection = drawn.collection()
    try:
        check_usable(collection, "test", PairsSpec())
        spec = CodesIdentifiers(levels=drawn.levels, codes=drawn.codes)
        codes = Codes.of_cells(spec.cells(source_of(collection)))
    except DatasetError:
        return
    count = len(collection)
    assert len(np.unique(codes.codes, axis=0)) == count

    qrels, rows = collection.qrels["test"], select_queries(collection, "test", None, 0)
    own = own_documents(collection, qrels, rows, None)
    candidates = build_candidates(collection, qrels, rows, drawn.negatives, 0, own=own)
    session = TableSession(codes.rows + 1, 6, seed)
    vocabulary = Vocabulary(0, codes.block_starts + 1, codes.level_sizes)
    padded = pad([[int(row) + 1] for row in rows])
    found = beam.search(session, codes.trie, vocabulary, *padded, drawn.beams)
    logit, partition = score(session, vocabulary, *padded, codes.paths(candidates["doc"]))

    sizes = group_sizes(
        tiny_spec(Path("x"), inference={"beams": drawn.beams, "negatives": drawn.negatives}),
        spec,
        models=1,
        queries=len(rows),
        candidates=candidates["doc"].shape[1],
        documents=count,
        steps=codes.length,
    )
    assert found.doc.shape == (sizes["query"], sizes["beam"], sizes["rank"])

    contrast = xr.Dataset(
        {
            "logit": (("model", "query", "candidate", "step"), logit[None]),
            "log_partition": (("model", "query", "candidate", "step"), partition[None]),
            **{name: (("query", "candidate"), array) for name, array in candidates.items()},
        }
    )
    search = xr.Dataset({"doc": (("model", "query", "beam", "rank"), found.doc[None])})
    measured, loss = recall(search, contrast, 3).values[0], cgl(contrast).values[0]
    for place, row in enumerate(rows):
        relevant = {int(d) for d in qrels.document[(qrels.query == row) & (qrels.relevance > 0)]}
        total: dict[int, float] = {}
        for document, path in enumerate(codes.codes.tolist()):
            prefix: tuple[int, ...] = (0,)
            total[document] = 0.0
            for level, code in enumerate(path):
                logits = session._logits((int(row) + 1,), prefix)
                token = int(vocabulary.block_starts[level]) + code
                total[document] += float(np.log(np.exp(logits).sum()) - logits[token])
                prefix = (*prefix, token)
        losses = {document: one / codes.length for document, one in total.items()}
        held = {int(one) for one in candidates["doc"][place] if one >= 0}
        assert relevant <= held and (own[place] < 0 or int(own[place]) not in held)
        others = count - len(relevant) - int(own[place] >= 0)
        assert len(held - relevant) == min(drawn.negatives, others)
        expected = plain_cgl({one: losses[one] for one in held}, relevant)
        np.testing.assert_allclose(loss[place], expected, rtol=1e-4)
        for number, size in enumerate(drawn.beams):
            ranked = [int(one) for one in found.doc[place, number] if one >= 0]
            assert measured[place, number] == plain_recall(ranked, relevant, 3)
            if size >= count:
                np.testing.assert_allclose(
                    [total[one] for one in ranked], sorted(total.values()), rtol=1e-5
                )
            assert len(ranked) <= min(size, count) and len(set(ranked)) == len(ranked)


def sweep_and_check(seed: int, kind: str, root: Path) -> None:
    """Run a whole study of a drawn collection; hold its cube against plain loops."""
    drawn = draw(seed)
    collection = drawn.collection()
    write_collection(root / "beir", drawn.documents, drawn.queries, {"test": [], **drawn.qrels})
    spec = tiny_spec(
        root / "beir",
        identifiers=[KINDS[kind]],
        training={"examples": 32, "batch_size": 16, "evaluations": 2},
        inference={"beams": drawn.beams, "negatives": drawn.negatives, "shard_queries": 3},
    )
    study = Study(spec, runs=root / "runs")
    try:
        cube = study.search()
    except DatasetError as error:
        assert "to fix" in str(error) or "expected" in str(error)
        assert not (study.folder / "checkpoints").exists()
        return
    study.analyse()
    study.report()
    tree = open_cube(cube)
    search, contrast = (tree[f"{kind}/{one}"].to_dataset().load() for one in ("search", "contrast"))
    measured, loss = recall(search, contrast, 5), cgl(contrast)
    qrels = collection.qrels["test"]
    for place, name in enumerate(search["query"].values.tolist()):
        row = collection.query_ids.index(name)
        relevant = {int(d) for d in qrels.document[(qrels.query == row) & (qrels.relevance > 0)]}
        own = int(search["own"].values[place])
        for number, size in enumerate(drawn.beams):
            ranked = [int(one) for one in search["doc"].values[0, place, number] if one >= 0]
            assert own not in ranked and len(set(ranked)) == len(ranked)
            assert measured.values[0, place, number] == plain_recall(ranked, relevant, 5)
            if kind == "codes" and size >= len(collection):
                assert set(ranked) == set(range(len(collection))) - {own}
        losses = {}
        gap = contrast["log_partition"].values[0, place] - contrast["logit"].values[0, place]
        for column, document in enumerate(contrast["doc"].values[place].tolist()):
            if document >= 0:
                steps = np.atleast_2d(gap[column])
                means = [line[~np.isnan(line)].mean() for line in steps if not np.isnan(line).all()]
                losses[document] = float(np.mean(means)) if means else math.nan
        expected = plain_cgl(losses, relevant)
        np.testing.assert_allclose(loss.values[0, place], expected, rtol=1e-4)
    counted = count_negatives(contrast["doc"].values, contrast["is_positive"].values)
    (record, *_) = study.analyse()["metrics"]
    assert record["negatives"] == pytest.approx(counted.mean())
    assert record["queries"] == len(counted)


@pytest.mark.parametrize(("seed", "kind"), [(1, "codes"), (2, "ngrams")])
def test_a_tiny_collection_sweeps_to_the_end_or_is_refused(seed, kind, tmp_path):
    sweep_and_check(seed, kind, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(100, 110))
def test_more_tiny_collections_sweep_to_the_end_or_are_refused(seed, kind, tmp_path):
    sweep_and_check(seed, kind, tmp_path)


@pytest.mark.parametrize("documents", [1, 2])
def test_b1_fewer_documents_than_the_largest_beam(documents, tmp_path):
    texts = ["ice in the north", "fire in the sea"][:documents]
    asked = [f"where is {text}" for text in texts]
    pairs = [(f"q{row}", f"d{row}", 1) for row in range(documents)]
    folder = write_collection(tmp_path / "beir", texts, asked, {"test": pairs})
    spec = tiny_spec(
        folder,
        identifiers=list(KINDS.values()),
        training={"examples": 32, "batch_size": 16, "evaluations": 2},
        inference={"beams": [1, 5, 100]},
    )
    study = Study(spec, runs=tmp_path / "runs")
    doc = open_cube(study.search())["codes/search"]["doc"].values
    assert (np.sort(doc[0, :, 2], axis=-1) == np.arange(documents)).all()
    *records, baseline = study.analyse()["metrics"]
    assert baseline["recall@1"]["mean"] == 1
    for record in records:
        assert record["queries"] == documents
        assert record["cgl_queries"] == documents * (documents > 1)
