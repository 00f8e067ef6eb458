"""Threads of one process: training, export and search give the serial run's bytes (A7)."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster

from genret_dask.executors.in_flight import run_reporting
from genret_dask.models.torch_state import alone_in_torch
from genret_dask.study.sweep import Study
from genret_dask.training.loop import seed_of
from tests.findings.conftest import tiny_spec, write_tiny

MODELS = [
    {"family": family, "name": f"{family}-{size}", "size": size}
    for family in ("t5", "llama")
    for size in ("femto", "pico")
]
TRAINING = {"examples": 128, "batch_size": 16, "evaluations": 2, "dropout": 0.1}


def made(study: Study) -> dict[str, str]:
    """Digests of every weight, graph and chunk of a study."""
    study.search()
    kept = ("*.safetensors", "*.onnx", "cube.zarr/**/c/**/*")
    return {
        str(path.relative_to(study.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in kept
        for path in sorted(study.folder.rglob(pattern))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    collection = write_tiny(tmp_path_factory.mktemp("beir") / "beir")
    inference = {"beams": [1, 5, 10], "negatives": 8, "shard_queries": 1}
    return tiny_spec(collection, models=MODELS, training=TRAINING, inference=inference)


@pytest.fixture(scope="module")
def serial(spec, tmp_path_factory) -> dict[str, str]:
    return made(Study(spec, runs=tmp_path_factory.mktemp("serial")))


@pytest.mark.parametrize(
    "again", [0, *(pytest.param(again, marks=pytest.mark.slow) for again in range(1, 10))]
)
def test_four_threads_of_one_process_give_the_serial_runs_bytes(
    spec, serial, tmp_path: Path, again: int
):
    assert len([name for name in serial if name.endswith(".safetensors")]) == 4
    assert len([name for name in serial if name.endswith(".onnx")]) >= 8
    cluster = LocalCluster(
        processes=False, n_workers=1, threads_per_worker=4, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        assert made(Study(spec, client, runs=tmp_path)) == serial


def test_the_state_of_torch_is_put_back():
    torch.manual_seed(1)
    threads, wanted = torch.get_num_threads(), torch.rand(3)
    torch.manual_seed(1)
    with alone_in_torch(threads=1):
        torch.manual_seed(2)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(3), wanted)


def test_the_seed_of_a_step_is_numpys_and_the_same_everywhere():
    assert seed_of(0, 0) == np.random.SeedSequence((0, 6, 0)).generate_state(1, np.uint64)[0]
    assert len({seed_of(seed, step) for seed in range(9) for step in range(9)}) == 81


began: list[str] = []
ended: list[str] = []


def linger(name: str, report) -> None:
    with alone_in_torch():
        report(0.0)
        began.append(name)
        for _ in range(1000):
            time.sleep(0.02)
            report(0.1)
        ended.append(name)


def test_tasks_that_wait_or_work_stop_when_their_worker_closes():
    """As after Ctrl-C with an in-process client."""
    cluster = LocalCluster(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
    )
    with cluster, Client(cluster) as client:
        futures = [
            client.submit(run_reporting, linger, name, name, key=name, pure=False) for name in "ab"
        ]
        while not began:
            time.sleep(0.01)
        client.cancel(futures)
    with alone_in_torch():  # nobody holds it any more
        assert len(began) == 1 and not ended
