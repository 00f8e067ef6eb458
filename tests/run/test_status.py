"""Where a run stands, at every state that it can be in, from its directory alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.errors import InputError, StaleError
from genret_dask.monitoring.log import RunLog
from genret_dask.run.lease import Lease
from genret_dask.run.spec import read_run_spec, write_run_spec
from genret_dask.run.status import read_status
from genret_dask.shards.plan import plan_shards
from genret_dask.storage.layout import RunLayout
from genret_dask.study.sweep import Study
from tests.runs import copy_models, make_spec


@pytest.fixture
def run(toy, tmp_path) -> Path:
    """A run whose search broke off after its second shard, by an error."""
    copy_models(toy, tmp_path)
    RunLayout(tmp_path / "toy").log.unlink()
    study = Study(make_spec(toy), runs=tmp_path)
    real, seen = study._stages, []

    def breaks(stage, done, total):
        real(stage, done, total)
        seen.append(done)
        if stage == "search" and seen[-2:] == [16, 16]:
            raise RuntimeError("the disk is on fire")

    study._stages = breaks
    with pytest.raises(RuntimeError), study.log:
        study.search()
    return tmp_path / "toy"


def rewritten(run: Path, **changes) -> None:
    """Change the last line of the log, or drop it where there is nothing to change."""
    lines = RunLayout(run).log.read_text("utf-8").splitlines()
    last = [json.dumps({**json.loads(lines[-1]), **changes})] if changes else []
    RunLayout(run).log.write_text("\n".join([*lines[:-1], *last]) + "\n")


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_a_finished_run_is_sealed(toy):
    found = read_status(toy / "serial" / "toy")
    assert found.state == "sealed" and found.stage is None and found.client is None
    assert [(one.kind, one.model) for one in found.models] == [
        (kind, model) for kind in ("codes", "ngrams") for model in ("t5", "llama")
    ]
    for one in found.models:
        assert one.trained and one.exported and (one.shards, one.done, one.left) == (4, 4, 0)
    assert found.indexes == found.indexes_done == 2


def test_a_run_that_failed_says_why_and_how_far_it_was(run):
    found = read_status(run)
    assert found.state == "failed" and found.why == "RuntimeError: the disk is on fire"
    assert [(one.done, one.left) for one in found.models] == [(2, 2), (0, 4), (0, 4), (0, 4)]
    assert found.last_event["event"] == "run_ended" and 0 <= found.log_age < 600


def test_a_run_that_ended_otherwise(run):
    rewritten(run, outcome="interrupted")
    assert read_status(run).state == "interrupted"
    rewritten(run, outcome="done")
    assert read_status(run).state == "incomplete"


def test_a_run_that_did_not_end_is_running_while_it_speaks(run):
    rewritten(run)
    found = read_status(run)
    assert found.state == "running" and found.stage.stage == "search"
    assert found.dashboard is None  # of a serial run
    assert found.stage.unit == "queries" and found.stage.total == 108
    rewritten(run, time=ago(3600))
    found = read_status(run)
    assert found.state == "stopped" and 3590 < found.log_age < 3700


def test_a_lease_tells_who_is_at_it_and_a_dead_one_nothing(run):
    with Lease(run):
        found = read_status(run)
        assert found.state == "running" and found.client.pid == os.getpid()
        path = max(RunLayout(run).lease.glob("*.json"))
        mine = json.loads(path.read_text())
    assert read_status(run).state == "failed" and read_status(run).client is None
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(json.dumps({**mine, "pid": gone.pid}))
    assert read_status(run).state == "failed"
    path.write_text(json.dumps({**mine, "pid": gone.pid, "host": "elsewhere"}))
    assert read_status(run).state == "running"
    path.write_text("{")
    assert read_status(run).client is None


def test_rate_and_time_left_are_those_of_the_last_ten_minutes(toy, tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    write_run_spec(folder, make_spec(toy))
    log = RunLog(folder)
    log.stage = "train"
    log("stage_began", total=1000)
    for seconds, done in ((10.0, 500), (1000.0, 600), (1500.0, 700)):
        log("stage_progress", seconds=seconds, done=done, total=1000)
    stage = read_status(folder).stage
    assert (stage.done, stage.total, stage.unit) == (700, 1000, "GFLOP")
    assert stage.rate == pytest.approx(0.2) and stage.seconds_left == pytest.approx(1500, abs=100)
    log("stage_ended", seconds=1600.0, done=1000, total=1000)
    assert read_status(folder).stage is None


def test_a_half_trained_run(toy, tmp_path):
    copy_models(toy, tmp_path)
    folder = tmp_path / "toy"
    for name in ("models", "candidates", "checkpoints/ngrams", "checkpoints/codes/t5", "spans"):
        shutil.rmtree(folder / name)
    RunLayout(folder).log.unlink()
    found = read_status(folder)
    assert found.state == "not begun"
    assert [one.trained for one in found.models] == [False, True, False, False]
    assert not any(one.exported for one in found.models)
    assert [(one.shards, one.done, one.left) for one in found.models] == [(None, 0, None)] * 4


def test_where_there_is_no_run_the_error_says_so(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read_status(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no run in it"):
        read_status(tmp_path)
    result = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert result.exit_code == 2 and "genret-dask sweep" in result.stderr


@pytest.mark.parametrize("text", ["", "[]", '{"models": 3}', '{"unknown": 1}', "\x00"])
def test_a_damaged_spec_is_named(tmp_path, text):
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(StaleError, match=r"spec\.json"):
        read_status(tmp_path)


def test_the_spec_of_a_run_reads_back_as_it_was(toy):
    assert read_run_spec(toy / "serial" / "toy") == make_spec(toy)


def test_a_study_of_other_settings_that_is_refused_leaves_the_spec(toy, tmp_path):
    copy_models(toy, tmp_path)
    shutil.copytree(toy / "serial" / "toy" / "cube.zarr", tmp_path / "toy" / "cube.zarr")
    other = make_spec(toy).model_copy(update={"seed": 5})
    with pytest.raises(StaleError):
        Study(other, runs=tmp_path).search()
    assert read_run_spec(tmp_path / "toy") == make_spec(toy)


def test_many_markers_take_one_listing_and_no_reading(run, monkeypatch):
    from genret_dask.run import status

    markers = run / "markers"
    names = ["t5", "llama"]
    for shard in plan_shards("codes", names, 8 * 500, 8):
        (markers / f"{shard.key}.json").touch()
    monkeypatch.setattr(status, "_queries", lambda *rest: (8 * 500, 8))
    opened = []
    real = Path.read_text

    def reads(path, *rest, **options):
        opened.append(path)
        return real(path, *rest, **options)

    monkeypatch.setattr(Path, "read_text", reads)
    found = read_status(run)
    assert [(one.shards, one.done) for one in found.models[:2]] == [(500, 500)] * 2
    assert not [path for path in opened if markers in path.parents]


# --- the command --------------------------------------------------------------------------------


def status(*options: str) -> str:
    result = CliRunner().invoke(main, ["status", *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_page_is_plain_text_with_failures(run):
    one = {"error": "Oops: no\n good", "worker": "", "attempts": 3, "time": ago(9)}
    failures = [{"key": "search.codes.t5-00-00000016", **one}] * 12
    (run / "failures.json").write_text(json.dumps({"failures": failures}))
    out = status(str(run))
    assert out.isascii()
    assert "failed: RuntimeError: the disk is on fire" in out
    assert "4 of 4 exported, 2 of 16 shards searched" in out
    assert out.count("search.codes.t5-00-00000016, 3 attempts: Oops: no good") == 10
    assert "failures   12" in out


def test_json_and_watch(run):
    record = json.loads(status(str(run), "--json"))
    assert record["state"] == "failed" and record["models"][0]["done"] == 2
    lines = status(str(run), "--json", "--watch", "0.01").splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["failed"]
