"""The commands on a small real study: a first run, a second, what they print, what they refuse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner, Result

from genret_dask.cli import main
from genret_dask.monitoring.timing import read_stages
from tests.conftest import make_collection, write_beir
from tests.runs import TINY

pytestmark = pytest.mark.usefixtures("rough_fits")

CLUSTER = {
    "version": 1,
    "module": "dask.distributed",
    "class": "LocalCluster",
    "kwargs": {
        "processes": False,
        "n_workers": 1,
        "threads_per_worker": 1,
        "dashboard_address": None,
    },
}


def config(root: Path, **changes) -> dict:
    return {
        "name": "toy",
        "dataset": {"kind": "beir", "path": str(root / "beir")},
        "identifiers": {"levels": 2, "codes": 6},
        "tokenizer": {"vocab_size": 400},
        "training": {"examples": 256, "batch_size": 16, "evaluations": 2},
        "models": [
            {"family": "t5", "config": TINY["t5"], "name": "a", "fractions": [0.5, 0.75, 1.0]},
            {"family": "t5", "config": {**TINY["t5"], "d_model": 32}, "name": "b"},
            {"family": "t5", "config": {**TINY["t5"], "d_ff": 128}, "name": "c"},
            {"family": "llama", "config": TINY["llama"], "name": "l"},
        ],
        "inference": {"beams": [1, 3, 10], "negatives": 12, "shard_queries": 8},
        "fits": {"bootstrap": 10},
        **changes,
    }


def run(root: Path, command: str, *options: str, spec: dict | None = None) -> Result:
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(spec or config(root)))
    (root / "cluster.yaml").write_text(yaml.safe_dump(CLUSTER))
    study = ["--cluster", str(root / "cluster.yaml"), "--config", str(path)]
    return CliRunner().invoke(main, [command, *study, "--runs", str(root / "runs"), *options])


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    write_beir(make_collection(), root / "beir")
    return root


@pytest.fixture(scope="module")
def swept(root) -> Result:
    result = run(root, "sweep")
    assert result.exit_code == 0, result.output
    return result


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path):
    write_beir(make_collection(), tmp_path / "beir")
    result = run(tmp_path, "sweep", "--dry-run")
    assert result.exit_code == 0, result.output
    for words in ("a-d0.5", "6 train, 6 export, 24 shards", "27 of the test split", "FLOPs"):
        assert words in result.output
    assert "to decode 16 queries at once" in result.output
    assert "budget 60 % of the memory limit a worker" in result.output
    assert not (tmp_path / "runs").exists()


def test_a_sweep_ends_with_its_table_fits_files_and_the_line_to_open_it(root, swept):
    out = swept.output
    for words in ("dashboard", "train", "R@10", "CGL", "FLOPs/query", "L(N)", "cube.zarr/"):
        assert words in out
    line = next(line for line in out.splitlines() if "xr.open_datatree(" in line)
    with eval(line.strip(), {"xr": xr}) as tree:
        assert tree["codes/search"].to_dataset().sizes["model"] == 6


def test_a_sweep_prints_and_keeps_what_its_worker_held_in_memory(root, swept):
    (line,) = [line for line in swept.stderr.splitlines() if line.startswith("peak memory")]
    (use,) = json.loads((root / "runs" / "toy" / "resources.json").read_text())["memory"]
    assert use["worker"] in line and "iB of " in line and "estimated" in line
    assert 0 < use["estimated_bytes"] < use["budget_bytes"]


def test_the_second_run_does_nothing_and_prints_the_same(root, swept):
    second = run(root, "sweep")
    assert second.exit_code == 0
    assert second.stdout == swept.stdout
    for stage in ("train ", "export ", "search ", "dataset ", "peak memory"):
        assert stage not in second.stderr


def test_a_run_that_is_trained_does_not_wait_for_torch(root, swept):
    script = (
        "import sys; from genret_dask.cli import main\n"
        "try: main()\n"
        "finally: print('heavy:', sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    files = ["--cluster", str(root / "cluster.yaml"), "--config", str(root / "config.yaml")]
    words = ["sweep", *files, "--runs", str(root / "runs")]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout


def test_a_sweep_ends_with_its_page_and_keeps_the_time_of_its_stages(root, swept):
    run_folder = root / "runs" / "toy"
    assert swept.stdout.rstrip().endswith(str(run_folder / "report" / "index.html"))
    assert "Worst and best queries" in (run_folder / "report" / "index.html").read_text("utf-8")
    (record,) = read_stages(run_folder)
    assert {"dataset", "train", "export", "search", "report"} <= set(record["stages"])
    assert record["machines"][0]["workers"] == 1


def test_a_performance_report_is_one_page_that_loads_nothing(root, swept, tmp_path):
    page = tmp_path / "report.html"
    result = run(root, "export", "--performance-report", str(page))
    assert result.exit_code == 0 and str(page) in result.stderr
    html = page.read_text("utf-8")
    assert "Dask Performance Report" in html and "Bokeh" in html
    assert not re.search(r"<(script|link)[^>]*(src|href)=", html)
    refused = run(root, "train", "--performance-report", str(tmp_path / "no" / "report.html"))
    assert refused.exit_code == 2 and "there is no folder" in refused.stderr


def test_a_performance_report_that_cannot_be_written_costs_the_run_nothing(root, swept, tmp_path):
    result = run(root, "train", "--performance-report", "/dev/full")
    assert result.exit_code == 0 and "/dev/full could not be written" in result.stderr


def test_a_report_that_fails_loses_nothing(root, swept, monkeypatch):
    def broken(run):
        raise ValueError("no ink")

    monkeypatch.setattr("genret_dask.report.is_reported", broken)
    result = run(root, "sweep")
    assert result.exit_code == 0 and "no ink" in result.stderr
    assert "open it with" in result.stdout


def test_train_and_export_report_their_artefacts(root, swept):
    trained, exported = run(root, "train"), run(root, "export")
    assert trained.exit_code == exported.exit_code == 0
    assert "dev loss" in trained.output and "a-d0.75" in trained.output
    assert "max |difference|" in exported.output


def test_metrics_records_agree_with_ir_measures_on_the_written_run(root, swept):
    result = CliRunner().invoke(main, ["metrics", str(root / "runs" / "toy"), "--json"])
    *records, baseline = json.loads(result.stdout)
    assert len(records) == 6 * 3 and baseline["model"] == "bm25"
    assert set(records[0]) >= {
        "identifiers", "model", "family", "n_params", "n_train", "train_fraction", "beam", "flops",
        "recall@1", "recall@5", "recall@10", "recall@100", "mrr@10", "ndcg@10", "map@10", "cgl",
        "generation_loss",
    }  # fmt: skip
    trec = root / "runs" / "toy" / "results" / "trec" / "codes"
    qrels = list(ir_measures.read_trec_qrels(str(trec / "qrels.txt")))
    measures = {
        "recall@1": "R@1", "recall@10": "R@10", "mrr@10": "RR@10", "ndcg@10": "nDCG@10",
        "map@10": "AP@10",
    }  # fmt: skip
    for record in records:
        if record["beam"] != 10:
            continue
        ranked = list(ir_measures.read_trec_run(str(trec / f"{record['model']}.beam10.run")))
        parsed = {ir_measures.parse_measure(name): key for key, name in measures.items()}
        found = ir_measures.calc_aggregate(list(parsed), qrels, ranked)
        for measure, key in parsed.items():
            assert record[key]["mean"] == pytest.approx(found[measure], abs=1e-6)
            assert record[key]["low"] <= record[key]["mean"] <= record[key]["high"]


def test_cgl_in_the_records_equals_a_plain_loop(root, swept):
    tree = xr.open_datatree(root / "runs" / "toy" / "cube.zarr", engine="zarr")
    contrast = tree["codes/contrast"].to_dataset().sel(model="l").load()
    losses = []
    for query in range(contrast.sizes["query"]):
        one = contrast.isel(query=query)
        loss = {
            c: float(np.mean(one["log_partition"].values[c].astype(float) - one["logit"].values[c]))
            for c in range(one.sizes["candidate"])
            if one["doc"].values[c] >= 0
        }
        positive = min(loss[c] for c in loss if one["is_positive"].values[c])
        negatives = sum(loss[c] for c in loss if not one["is_positive"].values[c])
        losses.append(-np.log(negatives / (negatives + positive)))
    result = CliRunner().invoke(main, ["metrics", str(root / "runs" / "toy"), "--json"])
    (record,) = [r for r in json.loads(result.stdout) if r["model"] == "l" and r["beam"] == 1]
    assert record["cgl"]["mean"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_tables_and_fits(root, swept):
    table = CliRunner().invoke(main, ["metrics", str(root / "runs" / "toy")])
    assert table.exit_code == 0 and "nDCG@10" in table.output
    fit = ["fit", str(root / "runs" / "toy"), "--draws", "5"]
    fits = CliRunner().invoke(main, [*fit, "--json"])
    laws = {record["law"] for record in json.loads(fits.stdout)}
    assert {"L(N)", "L(D)", "L(C)"} <= laws
    assert "exponent" in CliRunner().invoke(main, fit).output


# --- wrong input --------------------------------------------------------------------------------


def refused(result: Result, *words: str, code: int = 2) -> None:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output


def test_an_unknown_key_is_named_with_the_valid_ones(root):
    refused(run(root, "sweep", spec=config(root, modles=[])), "modles", "valid keys", "models")


def test_a_beam_of_zero_is_refused(root):
    refused(run(root, "sweep", spec=config(root, inference={"beams": [0]})), "beams", "greater")


def test_a_missing_folder_and_a_broken_line_are_named(root, tmp_path):
    spec = config(root, dataset={"kind": "beir", "path": str(tmp_path / "none")}, name="x")
    refused(run(root, "sweep", spec=spec), "none")
    broken = tmp_path / "broken"
    write_beir(make_collection(), broken)
    (broken / "corpus.jsonl").write_text('{"_id": "d0", "text": "x"}\nnot json\n')
    spec["dataset"]["path"] = str(broken)
    refused(run(root, "sweep", spec=spec), "corpus.jsonl", "line 2")


def test_other_settings_in_the_same_run_are_refused_and_lose_nothing(root, swept):
    inference = {"beams": [1, 4], "negatives": 12, "shard_queries": 8}
    found = run(root, "sweep", spec=config(root, inference=inference))
    refused(
        found, "cube.zarr: inference.beams was [1, 3, 10], now [1, 4]", "only the search", "--redo"
    )
    changed = config(root, identifiers={"levels": 1, "codes": 6})
    refused(
        run(root, "sweep", spec=changed), "identifiers/codes", "identifiers.levels was 2, now 1"
    )
    assert run(root, "sweep").stdout == swept.stdout


def test_a_tampered_model_is_refused(root, swept):
    weights = next((root / "runs" / "toy" / "models" / "codes" / "b").glob("*.onnx"))
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        refused(run(root, "sweep"), weights.name, "sha256")
    finally:
        weights.write_bytes(data)


def test_damage_is_told_and_repaired(root, swept):
    folder = root / "runs" / "toy"
    chunks = (folder / "cube.zarr").glob("*/search/score/c/**/*")
    chunk = next(path for path in chunks if path.is_file())
    data = chunk.read_bytes()
    assert "all is as it was written" in CliRunner().invoke(main, ["verify", str(folder)]).stdout
    chunk.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = CliRunner().invoke(main, ["verify", str(folder)])
    assert found.exit_code == 1 and "search/score cannot be read" in found.stdout
    assert f"genret-dask repair {folder}" in found.stdout
    cluster = ["--cluster", str(root / "cluster.yaml")]
    mended = CliRunner().invoke(main, ["repair", str(folder), *cluster])
    assert mended.exit_code == 0, mended.output
    assert mended.stdout.endswith("repaired: all is as it was written\n")
    assert chunk.read_bytes() == data


def test_damaged_results_are_refused(root, swept):
    fits = root / "runs" / "toy" / "results" / "fits.json"
    text = fits.read_bytes()
    fits.write_bytes(text[:-10])
    try:
        refused(run(root, "sweep"), f"{fits} has sha256", "repair")
    finally:
        fits.write_bytes(text)


def test_no_run_to_verify_or_repair(root):
    refused(CliRunner().invoke(main, ["verify", str(root / "none")]), "nothing at", "runs/pydoc")
    cluster = ["--cluster", str(root / "cluster.yaml")]
    refused(CliRunner().invoke(main, ["repair", str(root / "none"), *cluster]), "is not there")


@pytest.mark.parametrize("size", ["lots", "5", "-4GB", "1e400GB", ""])
def test_a_memory_size_that_is_none_is_refused(root, size):
    refused(run(root, "sweep", "--memory", size), "--memory", "4GB", repr(size))


def test_the_budget_of_the_option_wins_over_the_configs(root, tmp_path):
    write_beir(make_collection(), tmp_path / "beir")
    spec = config(tmp_path, inference={"memory": "2GB"})
    assert "budget 2GB" in run(tmp_path, "sweep", "--dry-run", spec=spec).output
    both = run(tmp_path, "sweep", "--dry-run", "--memory", "3GiB", spec=spec)
    assert "budget 3GiB" in both.output


def test_a_budget_that_is_too_small_says_what_to_do(root, swept):
    shutil.copytree(
        root / "runs" / "toy",
        root / "runs" / "small",
        ignore=shutil.ignore_patterns("cube.zarr", "markers"),
    )
    result = run(root, "sweep", "--memory", "2MiB", "--name", "small")
    refused(result, "budget of 2.00 MiB", "--memory", code=1)
    dry = run(root, "sweep", "--memory", "2MiB", "--name", "small", "--dry-run")
    assert dry.stderr.endswith(result.stderr[result.stderr.index("Error") :])


def test_a_place_that_cannot_be_written_is_named(root, tmp_path):
    (tmp_path / "file").write_text("")
    result = run(root, "sweep", "--runs", str(tmp_path / "file"))
    refused(result, "cannot write to", "run directory", code=1)


def test_metrics_without_a_cube_are_refused(tmp_path):
    refused(CliRunner().invoke(main, ["metrics", str(tmp_path)]), "there is no cube")


def test_the_readmes_first_snippet_runs(root, swept):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    snippet = readme.split("```python\n", 1)[1].split("```", 1)[0]
    assert '"runs/pydoc"' in snippet and "beam=100" in snippet
    run = str(root / "runs" / "toy")
    names: dict = {}
    exec(snippet.replace("runs/pydoc", run).replace("beam=100", "beam=10"), names)
    assert names["tree"].attrs["documents"] == 40
