"""Shards: plan, ledger, and a cube that no batch, shard or executor changes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genret_dask import open_cube
from genret_dask.errors import CubeError
from genret_dask.kinds import NgramsIdentifiers
from genret_dask.shards.ledger import Ledger
from genret_dask.shards.plan import ShardTask, batches, plan_shards
from genret_dask.shards.resources import Resources
from genret_dask.shards.task import Exported, SweepContext, run_shard
from genret_dask.specs import InferenceSpec
from genret_dask.storage.layout import RunLayout
from genret_dask.study.sweep import Study
from tests.runs import copy_models, differing, make_spec


@pytest.fixture
def root(toy) -> Path:
    return toy


# --- plan and ledger ----------------------------------------------------------------------------


@given(st.integers(1, 4), st.integers(1, 200), st.integers(1, 64))
def test_shards_cover_every_query_of_every_model_once(models, queries, shard_queries):
    names = [f"m{i}" for i in range(models)]
    shards = plan_shards("codes", names, queries, shard_queries)
    covered = np.zeros((models, queries), dtype=int)
    for shard in shards:
        covered[shard.model, shard.start : shard.stop] += 1
        assert shard.start % shard_queries == 0 and shard.name == names[shard.model]
    assert (covered == 1).all()
    assert len({shard.key for shard in shards}) == len(shards)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 16))
def test_a_querys_width_depends_on_its_own_length(lengths, size):
    lengths = np.array(lengths)
    seen = np.zeros(len(lengths), dtype=int)
    for rows, width in batches(lengths, lambda width: size):
        assert 1 <= len(rows) <= size
        seen[rows] += 1
        assert (-(-lengths[rows] // 8) * 8 == width).all()
    assert (seen == 1).all()


def test_only_markers_of_this_cube_count(tmp_path):
    task = ShardTask("codes", 0, "m", 0, 4, (("search", "f"),))
    ledger = Ledger(tmp_path / "markers")
    assert not ledger.read(task)
    ledger.mark(task, {"search/score": "00"})
    assert ledger.read(task)
    assert not ledger.read(replace(task, fingerprints=(("search", "other"),)))
    assert ledger.read(replace(task, fingerprints=()))
    path = tmp_path / "markers" / f"{task.key}.json"
    path.write_text(path.read_text()[:20])
    assert not ledger.read(task)
    with pytest.raises(CubeError, match="no marker"):
        ledger.digest([task])


# --- the cube -----------------------------------------------------------------------------------


@pytest.mark.cluster
def test_the_dask_run_gives_the_same_cube_bit_for_bit(root, tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        seen = []
        cube = Study(
            make_spec(root, identifiers=make_spec(root).identifiers[:1]),
            client,
            runs=tmp_path,
            progress=lambda stage, done, total: seen.append((stage, done, total)),
        ).search()
        workers = client.run(
            lambda dask_worker: len(dask_worker.plugins["genret-resources"].resources._sessions)
        )
    assert not differing(root / "serial" / "toy" / "cube.zarr" / "codes", cube / "codes")
    assert {stage for stage, done, total in seen if done == total} >= {"train", "export", "search"}
    assert sum(workers.values()) >= 2


@pytest.mark.parametrize(("shard_queries", "batch_queries"), [(5, 1), (64, 7)])
def test_batch_and_shard_size_change_no_ranking(root, tmp_path, shard_queries, batch_queries):
    copy_models(root, tmp_path)
    inference = make_spec(root).inference.model_copy(
        update={"shard_queries": shard_queries, "batch_queries": batch_queries}
    )
    cube = Study(make_spec(root, inference=inference), runs=tmp_path).search()
    one, other = open_cube(root / "serial" / "toy"), open_cube(cube)
    for dataset in ("codes/search", "codes/contrast", "ngrams/search", "ngrams/contrast"):
        first, second = (tree[dataset].to_dataset() for tree in (one, other))
        for name in first.data_vars:
            if first[name].dtype.kind == "f" and name != "flops":
                np.testing.assert_allclose(second[name], first[name], atol=1e-5, rtol=1e-5)
            else:
                np.testing.assert_array_equal(second[name], first[name])


def test_a_broken_off_run_does_only_what_is_left(root, tmp_path, monkeypatch):
    copy_models(root, tmp_path)
    spec = make_spec(root, identifiers=make_spec(root).identifiers[:1])
    study = Study(spec, runs=tmp_path)
    done = []
    real = run_shard

    def breaks(task, *rest):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(task.key)
        return real(task, *rest)

    monkeypatch.setattr("genret_dask.study.search.run_shard", breaks)
    with pytest.raises(KeyboardInterrupt):
        study.search()
    with pytest.raises(CubeError, match="not sealed"):
        open_cube(tmp_path / "toy")
    again = []
    monkeypatch.setattr(
        "genret_dask.study.search.run_shard",
        lambda task, *rest: (again.append(task.key), real(task, *rest))[1],
    )
    cube = Study(spec, runs=tmp_path).search()
    assert len(done) == 3 and not set(done) & set(again)
    assert not differing(root / "serial" / "toy" / "cube.zarr" / "codes", cube / "codes")


def test_a_finished_run_does_nothing(root, tmp_path):
    runs = shutil.copytree(root / "serial", tmp_path / "runs")
    seen = []
    Study(make_spec(root), runs=runs, progress=lambda *report: seen.append(report)).search()
    assert not seen


def test_flops_are_those_of_the_rows_each_beam_decodes(root):
    from genret_dask.models.flops import prefill_flops, step_flops
    from genret_dask.models.manifest import read_manifest

    search = open_cube(root / "serial" / "toy")["codes/search"].to_dataset()
    assert (np.diff(search["flops"].values, axis=-1) > 0).all()
    assert (search["rows_decoded"].sel(beam=1) == search.sizes["step"]).all()
    architecture = read_manifest(root / "serial" / "toy" / "models" / "codes" / "t5").architecture
    flops = search["flops"].sel(model="t5", beam=1).values
    options = {
        float(
            prefill_flops(architecture, n) + sum(step_flops(architecture, n, t) for t in range(k))
        )
        for n in range(1, 33)
        for k in [search.sizes["step"]]
    }
    assert all(any(value == pytest.approx(option) for option in options) for value in flops)


def test_digests_in_markers_are_those_of_the_cube(root):
    import hashlib

    run = root / "serial" / "toy"
    tree = open_cube(run)
    markers = list((run / "markers").rglob("*.json"))
    assert len(markers) == open_cube(run).attrs["shards"]
    for path in markers:
        marker = json.loads(path.read_text())
        search = tree[path.name.split(".")[1]]["search"].to_dataset()
        values = search["logit"].sel(model=marker["model"]).values
        values = np.ascontiguousarray(values[marker["start"] : marker["stop"]])
        found = hashlib.sha256(values.tobytes()).hexdigest()
        assert marker["sha256"]["search/logit"] == found


# --- what a process keeps -----------------------------------------------------------------------


def test_sessions_beyond_a_few_are_closed(root):
    resources = Resources()
    folder = root / "serial" / "toy" / "models" / "codes"
    for threads in range(1, 7):
        resources.session(folder / "t5", "cpu", threads)
    assert len(resources._sessions) == 4
    same = resources.session(folder / "t5", "cpu", 6)
    assert same is resources.session(folder / "t5", "cpu", 6)


def test_a_context_is_small(root):
    import pickle

    context = SweepContext(
        run=RunLayout(root),
        models={("ngrams", "a"): Exported(root, root, NgramsIdentifiers(), root)},
        inference=InferenceSpec(),
        max_tokens=32,
        fingerprint="f",
        corpus="c",
    )
    assert len(pickle.dumps(context)) < 4000
