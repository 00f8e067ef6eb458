"""Baselines beside the models of a study: computed once, shown everywhere, and in no law."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client

from genret_dask import open_cube
from genret_dask.baselines import Bm25Baseline, RunBaseline
from genret_dask.baselines.task import read_rankings
from genret_dask.cli import main
from genret_dask.cube.baselines import baselines_in
from genret_dask.errors import GenretError, InputError, StaleError
from genret_dask.executors.failures import read_failures
from genret_dask.fits import better
from genret_dask.metrics.baselines import beside_models, reduce_baselines
from genret_dask.metrics.bootstrap import bootstrap_mean, interval
from genret_dask.metrics.queries import reduce_queries
from genret_dask.metrics.ranking import measures
from genret_dask.run.status import read_status
from genret_dask.run.verification import verify_run
from genret_dask.specs import InferenceSpec, SweepSpec
from genret_dask.specs import sweep as specs
from genret_dask.study import origins
from genret_dask.study.origins import Origins
from genret_dask.study.sweep import Study
from tests.runs import differing, make_spec


def study_of(toy: Path, runs: Path, *baselines, client: Client | None = None, **changes) -> Study:
    """The toy study with other baselines, in a copy of its run unless one is there."""
    if not runs.exists():
        shutil.copytree(toy / "serial", runs)
    return Study(make_spec(toy, baselines=baselines, **changes), client, runs=runs)


def run_file(path: Path, *lines: str) -> RunBaseline:
    path.write_text("".join(f"{line}\n" for line in lines))
    return RunBaseline(path=path)


def contents(folder: Path, *but: str) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).as_posix().startswith(but)
    }


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> RunBaseline:
    """Rankings of another system: what is relevant is second, for half of the queries."""
    lines = [f"q{row} Q0 d{row % 40} 1 1.5 x" for row in range(40, 80, 2)]
    lines += [f"q{row} Q0 d{(row + 1) % 40} 1 2.5 x" for row in range(40, 80, 2)]
    return run_file(tmp_path_factory.mktemp("run") / "other.trec", *lines)


@pytest.fixture(scope="module")
def both(toy, other, tmp_path_factory) -> Path:
    """The analysed toy run with two baselines more than BM25's default."""
    runs = tmp_path_factory.mktemp("both") / "runs"
    study = study_of(toy, runs, Bm25Baseline(), Bm25Baseline(name="sharp", k1=0), other)
    study.search()
    study.analyse()
    return study.folder


def test_bm25_is_there_by_default_and_ranks_what_the_models_rank(toy):
    tree = open_cube(toy / "serial" / "toy")
    found = tree["baselines/bm25"].to_dataset()
    assert dict(found.sizes) == {"query": 27, "rank": 40}
    assert (found["doc"].dtype, found["score"].dtype) == (np.int32, np.float32)
    for kind in ("codes", "ngrams"):
        searched = tree[f"{kind}/search"].to_dataset()
        assert found["query"].values.tolist() == searched["query"].values.tolist()


def test_a_baseline_is_added_to_a_finished_run_and_nothing_else_is_made(toy, other, tmp_path):
    study = study_of(toy, tmp_path / "runs", Bm25Baseline(), other)
    changed = ("cube.zarr/baselines", "cube.zarr/zarr.json", "seal.json", "spec.json", "log.jsonl",
               "baselines/other", ".lease")  # fmt: skip
    before = contents(study.folder, *changed)
    assert [step.name for step in study.check() if step.state != "done"] == ["baselines/other"]
    fingerprint = open_cube(study.folder).attrs["fingerprint"]
    study.search()
    assert contents(study.folder, *changed) == before
    tree = open_cube(study.folder)
    assert tree.attrs["fingerprint"] == fingerprint
    assert [one["kind"] for one in tree.attrs["spec"]["baselines"]] == ["bm25", "run"]
    assert list(tree["baselines"].children) == ["bm25", "other"]
    assert verify_run(study.folder) == []


def test_a_cube_that_got_baselines_is_that_of_a_run_that_had_them(both, toy, other, tmp_path):
    study = study_of(toy, tmp_path / "runs", Bm25Baseline(), Bm25Baseline(name="sharp", k1=0),
                     other)  # fmt: skip
    shutil.rmtree(study.cube)
    shutil.rmtree(study.layout.markers)
    shutil.rmtree(study.folder / "baselines")
    study.search()
    assert differing(both / "cube.zarr", study.cube) == []


def test_a_cluster_gives_the_same_bytes(both, toy, other, tmp_path):
    with Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None) as one:
        study = study_of(toy, tmp_path / "runs", Bm25Baseline(), Bm25Baseline(name="sharp", k1=0),
                         other, client=one)  # fmt: skip
        shutil.rmtree(study.folder / "baselines")
        study.search()
    for name in ("cube.zarr", "baselines"):
        assert differing(both / name, study.folder / name) == []


def test_a_changed_setting_makes_only_its_baseline_stale(both, toy, other, tmp_path):
    shutil.copytree(both.parent, tmp_path / "runs")
    spec = make_spec(
        toy, baselines=(Bm25Baseline(), Bm25Baseline(name="sharp", k1=0.5), other.model_copy())
    )
    with pytest.raises(StaleError, match=r"baselines/sharp: baseline.k1 was 0.0, now 0.5") as error:
        Study(spec, runs=tmp_path / "runs").search()
    assert "prepare baselines/sharp" in str(error.value)
    study = Study(spec, runs=tmp_path / "runs", redo=True)
    assert [step.name for step in study.check() if step.state != "done"] == ["baselines/sharp"]
    before = baselines_in(study.cube)
    study.search()
    after = baselines_in(study.cube)
    assert [name for name in after if after[name] != before[name]] == ["sharp"]


def test_more_queries_make_it_grow(toy, tmp_path):
    shutil.copytree(toy / "serial", tmp_path / "runs")
    for queries in (16, 20):
        few = InferenceSpec(beams=(1, 3, 10), negatives=12, shard_queries=8, queries=queries)
        spec = make_spec(toy, inference=few)
        there = Origins(spec, tmp_path / "runs" / "toy")
        assert there.baseline(there.baselines[0]).state == "grows"
        Study(spec, runs=tmp_path / "runs", redo=True).search()
        assert open_cube(tmp_path / "runs" / "toy")["baselines/bm25"].sizes["query"] == queries


def test_it_ranks_the_documents_within_alone(toy, tmp_path):
    (tmp_path / "ids").write_text("d1\nd5\nd30\n")
    kept = InferenceSpec(beams=(1, 3, 10), negatives=12, within=tmp_path / "ids")
    study = Study(make_spec(toy, inference=kept), runs=tmp_path / "runs")
    (task,) = study.baselines()
    doc, _ = read_rankings(task.made.folder)
    assert {1, 5, 30} == set(np.unique(doc).tolist()) - {-1}
    assert not study.layout.model("codes").exists()


def test_without_baselines_there_is_no_group_and_no_row(toy, tmp_path):
    study = study_of(toy, tmp_path / "runs")
    study.search()
    assert not (study.cube / "baselines").exists() and verify_run(study.folder) == []
    assert not any("baseline" in one for one in study.analyse()["metrics"])
    with pytest.raises(InputError, match="the cube has no baselines"):
        open_cube(study.folder).genret.baselines()
    assert reduce_baselines(open_cube(study.folder), measures()) is None


def test_laws_are_the_same_with_and_without(both, toy, tmp_path):
    study = study_of(toy, tmp_path / "runs")
    study.search()
    study.analyse()
    for name in ("fits.json", "trec/codes/t5.beam10.run"):
        assert (study.layout.results / name).read_bytes() == (both / "results" / name).read_bytes()
    rows = json.loads((study.layout.results / "metrics.json").read_text())
    every = json.loads((both / "results" / "metrics.json").read_text())
    assert rows == every[: len(rows)] and len(every) == len(rows) + 3


def test_its_rows_are_those_of_ir_measures_with_the_resamples_of_models(both, other):
    rows = json.loads((both / "results" / "metrics.json").read_text())[-3:]
    assert [(one["model"], one["baseline"]) for one in rows] == [
        ("bm25", "bm25"), ("sharp", "bm25"), ("other", "run"),
    ]  # fmt: skip
    trec = both / "results" / "trec" / "baselines"
    qrels = [*ir_measures.read_trec_qrels(str(trec / "qrels.txt"))]
    named = {"recall@10": "R@10", "mrr@10": "RR@10", "ndcg@10": "nDCG@10", "success@1": "Success@1"}
    for row in rows:
        assert row["beam"] is row["cgl"] is row["n_params"] is row["flops"] is None
        paths = [trec / f"{row['model']}.run"]
        paths += [other.path] if row["model"] == "other" else []
        for path in paths:
            run = [*ir_measures.read_trec_run(str(path))]
            for ours, theirs in named.items():
                value = ir_measures.calc_aggregate([ir_measures.parse_measure(theirs)], qrels, run)
                assert row[ours]["mean"] == pytest.approx(*value.values())
    values = open_cube(both).genret.baselines("recall@10")["recall@10"].compute()
    bounds = interval(bootstrap_mean(values, 20, 0)).sel(baseline="other").values
    assert [rows[2]["recall@10"][end] for end in ("low", "high")] == bounds.tolist()
    assert 0 < rows[2]["recall@10"]["mean"] < 1 and rows[2]["recall@10"]["n"] == 27


def test_the_accessor_takes_any_cut_off_and_the_group_of_a_kind(both):
    tree = open_cube(both)
    found = tree["codes"].genret.baselines("recall@2", "mrr@3")
    assert set(found) == {"recall@2", "mrr@3"} and found["mrr@3"].chunks
    assert found["recall@2"].dims == ("baseline", "query")
    assert found["kind"].values.tolist() == ["bm25", "bm25", "run"]
    assert {"recall@10", "r_precision"} <= set(tree.genret.baselines())


def test_a_model_is_compared_with_a_baseline_by_the_same_resamples(both):
    tree = open_cube(both)
    search, contrast = (tree[f"codes/{name}"].to_dataset() for name in ("search", "contrast"))
    one = {"recall@10": measures()["recall@10"]}
    values = reduce_queries(search, contrast, one)
    joined = beside_models(values, reduce_baselines(tree, one))
    loss, found = better(joined, "other", "t5", draws=50)
    assert loss["difference"]["value"] is None and loss["better"] is None
    paired = joined["recall@10"].sel(model="other") - joined["recall@10"].sel(model="t5")
    paired = paired.sel(beam=10).reset_coords(drop=True)
    low, high = interval(bootstrap_mean(paired, 50, 0)).values
    assert found["difference"]["value"] == pytest.approx(float(paired.mean()))
    assert found["difference"]["low"] == pytest.approx(low, abs=1e-9)
    assert found["difference"]["high"] == pytest.approx(high, abs=1e-9)
    assert beside_models(values, None) is values


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_commands_show_it(both, toy, tmp_path):
    compared = json.loads(
        invoke("compare", both, "--model", "sharp", "--model", "llama", "--json", "--draws", 10)
    )
    assert [one["set"] for one in compared if one["metric"] == "recall@10"] == ["codes", "ngrams"]
    runs = both, toy / "serial" / "toy"
    two = invoke("compare", *runs, "--model", "bm25", "--model", "t5", "--draws", 10)
    assert two.count("bm25, t5") == 8
    *lines, note = invoke("metrics", both, "--draws", 10, "--trec", tmp_path / "trec").splitlines()
    assert note.startswith("note: the baseline other ranks nothing for ")
    assert note.endswith(" of 27 queries, which count as 0")
    assert [line.split()[:3] for line in lines[-3:]] == [
        ["-", name, "-"] for name in ("bm25", "sharp", "other")
    ]
    assert {one.name for one in (tmp_path / "trec" / "baselines").iterdir()} == {
        "qrels.txt", "bm25.run", "sharp.run", "other.run",
    }  # fmt: skip
    asked = invoke("metrics", both, "--metric", "recall@3", "--json", "--draws", 10)
    assert json.loads(asked)[-1]["recall@3"]["n"] == 27
    assert "3 of 3 baselines" in invoke("status", both)


def test_the_report_has_its_rows_and_is_written_anew_when_they_change(both, toy, tmp_path):
    shutil.copytree(both.parent, tmp_path / "runs")
    study = Study(make_spec(toy), runs=tmp_path / "runs")
    study.search()
    page = study.report().read_text()
    (row,) = [line for line in page.splitlines() if ">bm25</th>" in line]
    assert row.count(">–</td>") == 10
    assert "sharp" not in page and "Baselines: bm25 1 [1, 1]" in page
    again = Study(make_spec(toy, baselines=()), runs=tmp_path / "runs")
    again.search()
    assert "Baselines:" not in again.report().read_text()


def test_a_run_file_of_other_documents_is_refused_before_any_work(toy, tmp_path):
    wrong = run_file(tmp_path / "x.trec", "q76 Q0 d1 1 2 x", "q76 Q0 e1 1 2 x", "q76 Q0 e2 1 2 x")
    study = study_of(toy, tmp_path / "runs", wrong)
    with pytest.raises(GenretError, match=r"names 2 documents that the collection lacks: e1, e2"):
        study.search()
    assert not (study.folder / "baselines" / "x").exists()


def test_queries_that_a_run_file_lacks_are_told_of_and_find_nothing(both, toy, other, caplog,
                                                                   tmp_path):  # fmt: skip
    study = study_of(toy, tmp_path / "runs", other)
    study.check()
    (line,) = [one.message for one in caplog.records if "baselines other" in one.message]
    doc = open_cube(both)["baselines/other"]["doc"].values
    lacked = int((doc[:, 0] < 0).sum())
    assert f"lacks {lacked} of the 27 queries" in line and 0 < lacked < 27


def test_the_default_is_off_for_a_large_collection_unless_it_is_named(toy, tmp_path, monkeypatch,
                                                                      caplog):  # fmt: skip
    for module in (specs, origins):
        monkeypatch.setattr(module, "MOST_DOCUMENTS", 39)
    folder = tmp_path / "runs" / "toy"
    with caplog.at_level(logging.INFO):
        assert Origins(make_spec(toy), folder).baselines == ()
    (line,) = [one.message for one in caplog.records if "BM25" in one.message]
    assert "the collection has 40 documents: above 39 there is no BM25" in line
    assert len(Origins(make_spec(toy, baselines=(Bm25Baseline(),)), folder).baselines) == 1
    shutil.copytree(toy / "serial", tmp_path / "runs")
    assert read_status(folder).baselines == 0


def test_one_that_fails_is_noted_and_tried_again(toy, tmp_path, monkeypatch):
    def fail(*arguments) -> None:
        raise RuntimeError("no luck")

    study = study_of(toy, tmp_path / "runs", Bm25Baseline(name="mine"), Bm25Baseline(name="too"))
    with monkeypatch.context() as patch:
        patch.setattr(Bm25Baseline, "rank", lambda self, *rest: self.name == "too" and fail())
        with pytest.raises(GenretError, match="no luck"):
            study.search()
    (failure,) = read_failures(study.folder)
    assert failure.key == "baselines.bm25.too-01"
    again = study_of(toy, tmp_path / "runs", Bm25Baseline(name="mine"), Bm25Baseline(name="too"))
    assert [step.name for step in again.check() if step.state != "done"] == ["baselines/too"]
    again.search()
    assert not read_failures(study.folder) and len(baselines_in(again.cube)) == 2


def test_a_name_of_two_is_refused(toy):
    for changes, message in (
        ({"baselines": ["bm25", "bm25"]}, "several baselines are called bm25"),
        ({"identifiers": {"kind": "codes", "name": "baselines"}}, "cannot be called baselines"),
        ({"models": [{"family": "t5", "size": "pico", "name": "bm25"}]}, "a model and a baseline"),
    ):
        with pytest.raises(ValueError, match=message):
            SweepSpec.model_validate(changes)
    assert SweepSpec(baselines=["bm25"]).baselines == (Bm25Baseline(),)
