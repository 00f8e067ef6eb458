"""Corpora of fewer documents: nested, with those that are judged, the same in any order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genret_dask.datasets import (
    BeirDataset,
    BigramsDataset,
    DprDataset,
    KiltDataset,
    MsmarcoDataset,
    PydocDataset,
)
from genret_dask.datasets.columns import read_table
from genret_dask.datasets.given import read_given, write_given
from genret_dask.errors import DatasetError
from genret_dask.study.origins import Origins
from tests.runs import make_spec

SIZE = 60
JUDGED = {"train": range(0, 20), "dev": range(18, 24), "test": range(24, 30)}
KEPT = ["d36", "d38", "d40", "d49", "d59"]
"""The unjudged ones of the 35 of seed 5."""

NEEDED = {f"d{row}" for split in ("dev", "test") for row in JUDGED[split]}


def beir(folder: Path, order=None, **fields) -> BeirDataset:
    """Sixty documents, of which two are blank, in some order; each judged one has a query."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    rows = range(SIZE) if order is None else order
    texts = {row: "" if row in (7, 50) else f"text {row}" for row in range(SIZE)}
    corpus = [{"_id": f"d{row}", "title": "", "text": texts[row]} for row in rows]
    queries = [{"_id": f"q{row}", "text": f"query {row}"} for row in range(30)]
    for name, records in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines)
    for split, judged in JUDGED.items():
        lines = "".join(f"q{row}\td{row}\t{row % 2}\n" for row in judged)
        (folder / "qrels" / f"{split}.tsv").write_text(lines)
    return BeirDataset(path=folder, **fields)


def judgements(collection) -> dict[str, set[tuple[str, str, int]]]:
    return {
        split: {
            (collection.query_ids[q], collection.document_ids[d], int(r))
            for q, d, r in zip(qrels.query, qrels.document, qrels.relevance, strict=True)
        }
        for split, qrels in collection.qrels.items()
    }


def test_a_smaller_corpus_lies_within_a_larger_one_and_has_what_is_judged(tmp_path):
    whole = beir(tmp_path).load()
    train = {f"d{row}" for row in JUDGED["train"]}
    before: set[str] = set()
    for documents in [*range(len(NEEDED), SIZE + 1), SIZE + 7]:
        found = beir(tmp_path, documents=documents).load()
        ids = [*found.document_ids]
        assert len(ids) == min(documents, SIZE)
        assert before | NEEDED <= {*ids}
        assert {*ids} <= NEEDED | train or train <= {*ids}
        assert ids == [name for name in whole.document_ids if name in ids]
        texts = dict(zip(whole.document_ids, whole.texts, strict=True))
        assert [*found.texts] == [texts[name] for name in ids]
        assert found.query_ids == whole.query_ids
        assert judgements(found) == {
            split: {one for one in judged if one[1] in ids}
            for split, judged in judgements(whole).items()
        }
        assert [found.document_ids[row] for row in found.blank] == [
            name for name in ids if not texts[name]
        ]
        before = {*ids}
    assert found.content_hash == whole.content_hash


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(SIZE)), st.integers(12, SIZE), st.integers(0, 3))
def test_the_order_of_the_corpus_plays_no_part(tmp_path, order, documents, seed):
    found = [
        {*beir(tmp_path, one, documents=documents, seed=seed).load().document_ids}
        for one in (None, order)
    ]
    assert found[0] == found[1]


def test_nor_does_the_process(tmp_path):
    spec = beir(tmp_path, documents=35, seed=5)
    code = f"""
from genret_dask.datasets import BeirDataset
print(*BeirDataset(path={str(tmp_path)!r}, documents=35, seed=5).load().document_ids)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*spec.load().document_ids]
    # Of any machine and version: results of other runs lie within these.
    assert [name for name in done.stdout.split() if int(name[1:]) >= 30] == KEPT
    other = {*beir(tmp_path, documents=35, seed=6).load().document_ids}
    assert other != {*done.stdout.split()} and other >= NEEDED


def test_fewer_than_are_judged_are_refused_with_the_number_needed(tmp_path):
    with pytest.raises(DatasetError, match=r"documents is 11, and 12 .*\n.*12 or more") as caught:
        beir(tmp_path, documents=11).load()
    assert "dataset.documents: 12" in str(caught.value)


def test_corpora_of_other_sizes_are_other_collections(tmp_path):
    def fingerprint(**fields) -> str:
        spec = make_spec(tmp_path, dataset=beir(tmp_path, **fields))
        return Origins(spec, tmp_path / "run").collection.fingerprint

    found = [fingerprint(documents=35, seed=seed) for seed in (0, 1)]
    assert len({*found, fingerprint(), fingerprint(documents=36)}) == 4
    settings = beir(tmp_path).settings()
    assert not {"documents", "seed", "path"} & {*settings}


def test_every_kind_has_it_and_those_that_had_it_keep_its_meaning(tmp_path):
    whole = beir(tmp_path / "beir").load()
    rows = [*zip(whole.document_ids, whole.texts, strict=True)]
    (tmp_path / "collection.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in rows))
    (tmp_path / "q.tsv").write_text("q1\twhat\n")
    (tmp_path / "qrels.txt").write_text("q1 0 d3 1\n")
    marco = MsmarcoDataset(path=tmp_path, documents=5, test=("q.tsv", "qrels.txt"))
    (tmp_path / "passages.tsv").write_text("".join(f"{a}\t{b}\t\n" for a, b in rows))
    (tmp_path / "test.csv").write_text("which\t['text 3']\n")
    dpr = DprDataset(passages=tmp_path / "passages.tsv", test=tmp_path / "test.csv", documents=5)
    asked = {"id": "q", "input": "?", "output": [{"provenance": [{"wikipedia_id": "d3"}]}]}
    (tmp_path / "test.jsonl").write_text(json.dumps(asked))
    kilt = KiltDataset(pages=tmp_path / "passages.tsv", test=tmp_path / "test.jsonl", documents=5)
    found = [[*one.load().document_ids] for one in (marco, dpr, kilt)]
    assert found[0] == found[1] == found[2] and len(found[0]) == 5 and "d3" in found[0]
    assert BigramsDataset(path=tmp_path / "beir", documents=9, queries=3).load().document_ids[8]
    sizes = {seed: PydocDataset(libraries=("dask",), documents=9, seed=seed) for seed in (0, 1)}
    first, second = ({*one.load().document_ids} for one in sizes.values())
    assert len(first) == len(second) == 9 and first != second
    assert np.unique([one.fingerprint() for one in sizes.values()]).size == 2


def test_ids_are_looked_up_among_those_that_are_kept(tmp_path):
    found = beir(tmp_path, documents=len(NEEDED) + 3).load(tmp_path / "columns")
    table = read_table(tmp_path / "columns" / "ids.arrow")
    hashes, rows = found.document_ids.sort_hashes()
    assert table["hash"].to_pylist() == hashes.tolist()
    assert table["row"].to_pylist() == rows.tolist()


def test_pairs_of_documents_that_are_not_kept_are_dropped_and_others_refused(tmp_path, caplog):
    found = beir(tmp_path, documents=len(NEEDED) + 3).load(tmp_path / "columns")
    kept = {*found.document_ids}
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"d{row}\tabout {row}\n" for row in range(SIZE)))
    pairs = read_given(write_given(found, [file], tmp_path / "pairs"))
    assert [*zip(pairs.document.tolist(), pairs.texts, strict=True)] == [
        (found.document_ids.find([f"d{row}"])[0], f"about {row}")
        for row in range(SIZE)
        if f"d{row}" in kept
    ]
    assert f"{SIZE - len(kept)} pairs of documents that dataset.documents leaves out" in caplog.text
    file.write_text("d0\tone\nd999\ttwo\n")
    with pytest.raises(DatasetError, match="line 2: .* has no document 'd999'"):
        write_given(found, [file], tmp_path / "pairs")


def test_more_than_there_are_is_said(tmp_path, caplog):
    assert len(beir(tmp_path, documents=SIZE + 7).load()) == SIZE
    assert f"has {SIZE} documents, fewer than the {SIZE + 7} to keep" in caplog.text
