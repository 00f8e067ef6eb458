"""A study of DPR's files is told by success@20 from end to end, or by what is asked for."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import genret_dask
from genret_dask.cli import main
from genret_dask.cube.open import kinds
from genret_dask.cube.store import read_attributes
from genret_dask.datasets import DprDataset, IrDatasetsDataset
from genret_dask.datasets.bigrams import BigramsDataset
from genret_dask.errors import InputError
from genret_dask.executors.serial import SerialExecutor
from genret_dask.fits import fits_of, means_of
from genret_dask.kinds import CodesIdentifiers
from genret_dask.report.gather import gather
from genret_dask.report.page import write_report
from genret_dask.study import reductions
from genret_dask.study.reductions import Reductions
from genret_dask.study.sweep import Study
from tests.conftest import make_collection
from tests.runs import make_spec


def dpr_files(folder: Path) -> DprDataset:
    """Passages, and questions whose answers are three words of one of them."""
    collection = make_collection()
    rows = zip(collection.document_ids, collection.texts, strict=True)
    passages = "".join(f"{name}\t{text}\ttitle\n" for name, text in rows)
    (folder / "passages.tsv").write_text(passages)
    for split in ("train", "test"):
        qrels = collection.qrels[split]
        lines = [
            f"{collection.queries[query]}\t{[' '.join(collection.texts[row].split()[:3])]!r}\n"
            for query, row in zip(qrels.query, qrels.document, strict=True)
        ]
        (folder / f"{split}.csv").write_text("".join(lines) + "who?\t['nobody knows']\n")
    return DprDataset(
        passages=folder / "passages.tsv", train=folder / "train.csv", test=folder / "test.csv"
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    root = tmp_path_factory.mktemp("dpr")
    spec = make_spec(
        root, dataset=dpr_files(root), identifiers=(CodesIdentifiers(levels=2, codes=6),)
    )
    study = Study(spec, runs=root / "runs")
    study.search()
    study.analyse()
    return study


def ask(*words: object) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_cube_holds_the_metric_and_other_cubes_do_not(study, toy):
    assert read_attributes(study.cube)["main_metric"] == "success@20"
    assert "main_metric" not in read_attributes(toy / "serial" / "toy" / "cube.zarr")
    assert genret_dask.open_cube(study.cube).genret.main_metric == "success@20"
    assert genret_dask.open_cube(toy / "serial" / "toy")["codes"].genret.main_metric == "recall@10"


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("msmarco-passage/dev/small", "mrr@10"),
        ("msmarco-document-v2/dev1", "mrr@10"),
        ("msmarco-passage/trec-dl-2019", "recall@10"),
        ("beir/msmarco/dev", "recall@10"),
        ("beir/scifact/test", "recall@10"),
    ],
)
def test_ms_marco_is_told_by_its_leaderboards_metric(name, metric):
    assert IrDatasetsDataset(test=name).main_metric == metric


def test_results_and_commands_take_it_by_default(study):
    stored = json.loads((study.layout.results / "fits.json").read_text())
    assert {one["metric"] for one in stored} == {"1 - success@20"}
    run = study.folder
    fits = json.loads(ask("fit", run, "--json", "--draws", 20))
    assert {one["metric"] for one in fits} == {"1 - success@20"}
    (plan,) = json.loads(ask("plan", run, "--json", "--draws", 20))
    assert plan["metric"] == "success@20"
    assert "best S@20" in ask("plan", run, "--draws", 20)
    compared = json.loads(ask("compare", run, "--json", "--draws", 20))
    assert {one["metric"] for one in compared} == {"cgl", "success@20"}
    page = write_report(run).read_text()
    assert "Highest success@20" in page and "recall@10" not in page
    assert "answer_hits@20" in ask("metrics", run, "--draws", 20).split("\n")[0]


@pytest.mark.parametrize("metric", ["ndcg@10", "success@2", "answer_hits@3", "r_precision"])
def test_another_metric_is_taken_by_option(study, metric):
    run = study.folder
    fits = json.loads(ask("fit", run, "--metric", metric, "--json", "--draws", 20))
    assert {one["metric"] for one in fits} == {f"1 - {metric}"}
    (plan,) = json.loads(ask("plan", run, "--metric", metric, "--json", "--draws", 20))
    values = genret_dask.open_cube(run).genret.metric(metric).mean("query")
    best = plan["measured"]
    assert best["recall"]["value"] == pytest.approx(float(values.max()))
    assert float(values.sel(model=best["model"], beam=best["beam"])) == pytest.approx(
        best["recall"]["value"]
    )
    compared = json.loads(ask("compare", run, "--metric", metric, "--json", "--draws", 20))
    assert {one["metric"] for one in compared} == {"cgl", metric}
    assert gather(run, metric=metric).kinds[0].means.metric == metric
    (record, *_) = json.loads(ask("metrics", run, "--metric", metric, "--json", "--draws", 20))
    assert record[metric]["n"] == record["queries"]
    assert not {"recall@10", "success@20"} & set(record)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((command, "nothing@10") for command in ("fit", "plan", "compare", "metrics", "report")),
        *(("plan", name) for name in ("recall", "recall@0", "recall@-1", "recall@x", "")),
    ],
)
def test_a_metric_that_there_is_not_is_refused(study, command, name):
    done = CliRunner().invoke(main, [command, str(study.folder), "--metric", name])
    assert done.exit_code == 2 and "no metric" in done.stderr and "ndcg@k" in done.stderr


def test_runs_that_are_told_differently_need_a_name(study, toy):
    runs = [str(study.folder), str(toy / "serial" / "toy")]
    done = CliRunner().invoke(main, ["compare", *runs])
    assert done.exit_code == 2 and "--metric success@20" in done.stderr


def test_answer_hits_are_success_on_a_dpr_collection(study):
    tree = genret_dask.open_cube(study.cube)
    for k in (1, 5, 20):
        hits, judged = (tree.genret.metric(f"{name}@{k}") for name in ("answer_hits", "success"))
        np.testing.assert_array_equal(hits.values, judged.values)
        assert hits.equals(tree.genret.answer_hits(k))
    values = tree.genret.per_query()
    assert {"answer_hits@1", "answer_hits@100", "success@20"} <= set(values)
    law = tree.genret.fit("flops", metric="answer_hits@5", family="t5", draws=10)
    assert law.points.metric == "1 - answer_hits@5"


def test_the_cluster_computes_answer_hits_as_threads_do(study, monkeypatch):
    monkeypatch.setattr(reductions, "SHARDS", 2)
    tree = genret_dask.open_cube(study.cube)
    found = [Reductions(study.cube, tree, one).values for one in (None, SerialExecutor())]
    xr.testing.assert_identical(found[0]["codes"], found[1]["codes"])
    assert "answer_hits@20" in found[0]["codes"]


def test_a_cube_without_its_run_is_told_by_the_same_metric(study, tmp_path):
    shutil.copytree(study.cube, tmp_path / "cube.zarr")
    tree = genret_dask.open_cube(tmp_path / "cube.zarr")
    assert tree.genret.main_metric == "success@20"
    assert not any(name.startswith("answer") for name in tree.genret.per_query())
    with pytest.raises(InputError, match="answer_hits@20"):
        tree.genret.answer_hits(20)


def test_trec_runs_of_any_beam_give_the_cubes_metrics(study, tmp_path):
    tree = genret_dask.open_cube(study.cube)
    ask("metrics", study.folder, "--trec", tmp_path / "trec", "--draws", 5)
    qrels = list(ir_measures.read_trec_qrels(str(tree.genret.trec_qrels(tmp_path / "qrels"))))
    asked = {
        f"{ours}@{k}": f"{theirs}@{k}"
        for ours, theirs in (("recall", "R"), ("success", "Success"), ("ndcg", "nDCG"))
        for k in (1, 3, 10)
    } | {"r_precision": "Rprec", "mrr@10": "RR@10"}
    parsed = {ir_measures.parse_measure(name): key for key, name in asked.items()}
    written = set()
    for _, search, _ in kinds(tree):
        for model in search["model"].values.tolist():
            for beam in search["beam"].values.tolist():
                path = tree.genret.trec_run(tmp_path / "run", model=model, beam=beam)
                name = f"codes/{model}.beam{beam}.run"
                assert (tmp_path / "trec" / name).read_bytes() == path.read_bytes()
                written.add(name)
                ranked = list(ir_measures.read_trec_run(str(path)))
                found = ir_measures.calc_aggregate(list(parsed), qrels, ranked)
                for measure, key in parsed.items():
                    values = tree.genret.metric(key).sel(model=model, beam=beam)
                    assert float(values.mean()) == pytest.approx(found[measure], rel=1e-9)
    files = {path.relative_to(tmp_path / "trec").as_posix() for path in tmp_path.rglob("trec/*/*")}
    others = {"codes/qrels.txt", "baselines/qrels.txt", "baselines/bm25.run"}
    assert files == written | others and len(written) == 6
    assert (tmp_path / "trec/codes/qrels.txt").read_bytes() == (tmp_path / "qrels").read_bytes()
    widest = next(iter(study.layout.results.glob("trec/codes/t5.beam10.run")))
    assert (tmp_path / "trec/codes/t5.beam10.run").read_bytes() == widest.read_bytes()


def test_a_dataset_whose_metric_there_is_not_is_refused_before_any_work(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("genret_dask.datasets.BeirDataset.main_metric", "fame@3")
    with pytest.raises(InputError, match="no metric 'fame@3'"):
        Study(make_spec(toy), runs=tmp_path).check()
    assert BigramsDataset(path=toy / "beir").main_metric == "recall@10"


def test_means_and_fits_name_what_they_lack(study):
    values = genret_dask.open_cube(study.cube).genret.per_query().compute()
    with pytest.raises(InputError, match=re.escape("no metric 'recall@3' of a search")):
        means_of(values, 5, metric="recall@3")
    with pytest.raises(InputError, match="no metric 'cgl' of a search"):
        fits_of("codes", values, 5, metric="cgl")
