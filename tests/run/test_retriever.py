"""A model as a retriever: what the sweep found, from a run or from a folder copied elsewhere."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client

from genret_dask import Retriever, open_cube
from genret_dask.cli import main
from genret_dask.datasets import stored
from genret_dask.errors import GenretError, InputError, ModelError
from genret_dask.kinds import CodesIdentifiers, NgramsIdentifiers, TitlesIdentifiers
from genret_dask.run.carried import Place
from genret_dask.run.searching import Search
from genret_dask.specs import InferenceSpec, ModelSpec, TrainingSpec
from genret_dask.study.sweep import Study
from tests.conftest import make_collection, write_beir
from tests.runs import TINY, make_spec

KINDS = (
    CodesIdentifiers(levels=2, codes=6),
    TitlesIdentifiers(repeated="share"),
    NgramsIdentifiers(max_tokens=3, spans=2),
)
LABELS = [kind.label for kind in KINDS]
BEAMS = (2, 7)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("retriever")
    collection = make_collection(20)
    titles = [f"title {row // 2}" for row in range(len(collection))]
    write_beir(replace(collection, titles=titles), root / "beir")
    spec = make_spec(
        root,
        identifiers=KINDS,
        models=(ModelSpec(family="llama", config=TINY["llama"], name="llama"),),
        training=TrainingSpec(examples=160, batch_size=16, evaluations=1),
        inference=InferenceSpec(beams=BEAMS, negatives=8, batch_queries=8),
    )
    study = Study(spec, runs=root / "runs")
    study.search()
    study.analyse()
    return root / "runs" / "toy"


def asked(run: Path, label: str):
    search = open_cube(run)[f"{label}/search"].isel(model=0)
    return search, [str(text) for text in search["text"].values]


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("label", LABELS)
def test_it_finds_what_the_sweep_found(run, label, beam):
    search, texts = asked(run, label)
    found = Retriever.open(run, identifiers=label).search(texts, beam=beam)
    expected = search.sel(beam=beam)
    ranks = min(found.dataset.sizes["rank"], expected.sizes["rank"])
    for name in ("doc", "score"):
        mine, theirs = found.dataset[name].values, expected[name].values
        np.testing.assert_array_equal(mine[:, :ranks], theirs[:, :ranks])
        assert (expected["doc"].values[:, ranks:] == -1).all()
    documents = stored.read_artefact(run / "collection")
    for row, hits in enumerate(found):
        rows = found.dataset["doc"].values[row]
        rows = rows[rows >= 0].tolist()
        assert [hit.id for hit in hits] == [documents.document_ids[one] for one in rows]
        assert [hit.title for hit in hits] == [documents.titles[one] for one in rows]
        assert [hit.text for hit in hits] == [documents.texts[one] for one in rows]
        assert found.dataset["id"].values[row, : len(hits)].tolist() == [hit.id for hit in hits]


@pytest.mark.parametrize("label", LABELS)
def test_a_folder_that_was_copied_answers_without_its_run(run, tmp_path, label):
    _, texts = asked(run, label)
    expected = Retriever.open(run, identifiers=label).search(texts, beam=5).dataset
    copy = shutil.copytree(run / "models" / label / "llama", tmp_path / "model")
    away = run.rename(run.with_name("away"))
    try:
        found = Retriever.open(copy).search(texts, beam=5).dataset
    finally:
        away.rename(run)
    assert found.identical(expected)


def test_what_it_carries_takes_no_room_beside_the_run(run):
    for label in LABELS:
        files = (run / "models" / label / "llama" / "carried").rglob("*")
        linked = [path for path in files if path.is_file() and path.name != "search.json"]
        assert linked and all(path.stat().st_nlink > 1 for path in linked)


def test_the_texts_of_another_collection_are_refused(run, tmp_path):
    copy = shutil.copytree(run / "models" / "codes" / "llama", tmp_path / "model")
    other = make_collection(20)
    write_beir(replace(other, texts=[f"{text} more" for text in other.texts]), tmp_path / "beir")
    spec = make_spec(
        tmp_path,
        identifiers=KINDS[:1],
        models=(ModelSpec(family="llama", config=TINY["llama"], name="llama"),),
    )
    study = Study(spec, runs=tmp_path / "runs")
    study.training_tasks()
    shutil.rmtree(copy / "carried" / "collection")
    shutil.copytree(tmp_path / "runs" / "toy" / "collection", copy / "carried" / "collection")
    with pytest.raises(ModelError, match="are of another collection than"):
        Retriever.open(copy)
    (copy / "carried" / "identifiers" / "codes.npy").unlink()
    with pytest.raises(ModelError):
        Retriever.open(copy)


def test_threads_may_share_one(run):
    _, texts = asked(run, "codes")
    retriever = Retriever.open(run, identifiers="codes", threads=1)
    expected = [retriever.search([text], beam=7).dataset["doc"].values for text in texts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: retriever.search([text], beam=7).dataset["doc"], texts))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.values, theirs)


def test_a_cluster_finds_the_same(run, monkeypatch):
    _, texts = asked(run, "titles")
    monkeypatch.setattr("genret_dask.run.searching._SHARD", 4)
    search = Search(Place.of(run, label="titles"), beam=7, top=3, how={"threads": 1})
    done: list[float] = []
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as one:
        found = search.run(texts, one, lambda count, of: done.append(count))
    assert found.dataset.identical(search.run(texts).dataset)
    assert max(done) == len(texts) > 4


def test_the_run_that_is_written_gives_the_metrics_of_the_cube(run, tmp_path):
    search, texts = asked(run, "codes")
    names = [str(name) for name in search["query"].values]
    (tmp_path / "q.tsv").write_text(
        "".join(f"{name}\t{text}\n" for name, text in zip(names, texts, strict=True))
    )
    arguments = ["search", str(run), "--identifiers", "codes", "--queries", tmp_path / "q.tsv"]
    arguments += ["--beam", "7", "--output", tmp_path / "found.run"]
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    measures = [ir_measures.R @ 5, ir_measures.nDCG @ 5]
    qrels = run / "results" / "trec" / "codes" / "qrels.txt"
    judged = list(ir_measures.read_trec_qrels(str(qrels)))
    found = list(ir_measures.read_trec_run(str(tmp_path / "found.run")))
    values = ir_measures.calc_aggregate(measures, judged, found)
    mine = open_cube(run)["codes"].genret
    for measure, metric in zip(measures, (mine.recall(5), mine.ndcg(5)), strict=True):
        assert values[measure] == pytest.approx(
            float(metric.sel(beam=7).isel(model=0).mean()), abs=1e-6
        )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no query"),
        ("a b\tc\n", "line 1: the id 'a b' is empty or holds a blank"),
        ("q1\tone\nq1\ttwo\n", "line 2: the id 'q1' again, first in line 1"),
        ('{"_id": "q1", "text": "one"}\nplain\n', "line 2"),
        ('{"_id": "q1"}\n', "line 1"),
        ("q1\t \n", "line 1: query q1 has no text"),
    ],
)
def test_wrong_queries_are_named_by_file_and_line(run, tmp_path, content, said):
    (tmp_path / "queries").write_text(content)
    arguments = ["search", str(run), "--identifiers", "codes", "--queries"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "queries")])
    assert result.exit_code == 2 and said in result.stderr and "queries" in result.stderr


def test_what_cannot_be_found_is_refused(run, tmp_path):
    retriever = Retriever.open(run, identifiers="codes")
    for options, said in (
        ({"beam": 3, "top": 4}, "top 4, of which a search at beam 3 finds 3"),
        ({"beam": 0}, "beam size 0"),
    ):
        with pytest.raises(InputError, match=said):
            retriever.search(["a"], **options)
    with pytest.raises(InputError, match="query 1 is empty"):
        retriever.search(["a", " "])
    for place, options, said in (
        (run, {}, "several models"),
        (run, {"model": "none"}, "no model 'none'"),
        (run, {"identifiers": "none"}, "no identifiers 'none'"),
        (tmp_path, {}, "has no run in it"),
        (run / "models" / "codes" / "llama", {"model": "llama"}, "is one model"),
    ):
        with pytest.raises(GenretError, match=said):
            Retriever.open(place, **options)


def test_what_is_no_text_is_refused_and_what_is_found_is_named(run):
    retriever = Retriever.open(run, identifiers="codes", model="llama")
    with pytest.raises(InputError, match="query 1 is a int"):
        retriever.search(["a", 3])
    found = retriever.search(["a word"], beam=2)
    assert repr(found) == "<Found: 1 queries, 2 ranks, llama>"


def test_records_are_printed(run, tmp_path):
    (tmp_path / "q.txt").write_text("one\ntwo\n")
    options = ["--queries", tmp_path / "q.txt", "--identifiers", "codes", "--model", "llama"]
    words = ["search", run, *options, "--beam", 2, "--output", "-"]
    result = CliRunner().invoke(main, [str(one) for one in words])
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["text"] for one in records] == ["one", "two"]
    assert all(len(one["hits"]) == 2 for one in records)
    (tmp_path / "q.txt").write_text("one\nq2\ttwo\n")
    result = CliRunner().invoke(main, [str(one) for one in words])
    assert result.exit_code == 2 and "line 2" in result.stderr
