"""Damaged YAML and cubes: success, or an error that names the file and says what to do."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genret_dask.cli import main
from genret_dask.clusters import load_cluster_spec
from genret_dask.errors import GenretError
from genret_dask.specs import SweepSpec, load_spec
from genret_dask.specs.grid import cells_of
from genret_dask.study.estimate import estimate
from tests.conftest import make_collection
from tests.fits import conftest as laws
from tests.hostile.mutations import damaged, render, write

HANG_SECONDS = 30
MEMORY_BYTES = 3 * 2**29
"""More than what the process has."""

SWEEP = {
    "name": "study",
    "seed": 3,
    "dataset": {"kind": "beir", "path": "data/x", "allow_unknown_ids": False},
    "identifiers": [
        {"kind": "codes", "levels": 2, "codes": 8, "embedding": {"kind": "tfidf", "dim": 8}},
        {"kind": "ngrams", "max_tokens": 6, "views": ["body", "titles"], "scoring": {"alpha": 2.0}},
    ],
    "tokenizer": {"vocab_size": 400},
    "training": {"pairs": {"sentences": 2, "span_words": [3, 6]}, "examples": 500, "warmup": 0.1},
    "models": [
        {"family": "t5", "size": "femto", "fractions": [0.5, 1.0], "training": {"patience": 2}},
        {"family": "llama", "name": "mine", "config": {"hidden_size": 32, "num_hidden_layers": 2}},
        {"family": "llama", "name": "theirs", "pretrained": {"path": "nowhere"}},
    ],
    "export": {"tolerance": 0.01, "precision": ["fp32", "int8"]},
    "inference": {"beams": [1, 5], "negatives": 8, "memory": "1GB", "provider": "cpu"},
    "fits": {"bootstrap": 50},
}
LOCAL = {
    "version": 1,
    "module": "dask.distributed",
    "class": "LocalCluster",
    "kwargs": {"n_workers": 2, "memory_limit": "2GB", "scheduler_kwargs": {"port": 0}},
    "environment": {"HF_TOKEN": "hf_hunter2hunter2", "OMP_NUM_THREADS": 1},
    "timeout": 60,
}
QUEUE = {
    "module": "dask_jobqueue",
    "class": "SLURMCluster",
    "kwargs": {"cores": 1, "memory": "2GB", "job_extra_directives": ["--gres=gpu:1"]},
    "adapt": {"minimum": 1, "maximum": 4},
}
ADDRESS = {"address": "tls://host:8786", "timeout": 5}


def load_sweep(folder: Path) -> None:
    spec = load_spec(folder / "sweep.yaml")
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec
    for cell in cells_of(spec):
        cell.training(spec)
    with contextlib.suppress(GenretError):
        estimate(spec, make_collection(12))


def load_clusters(folder: Path) -> None:
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        load_cluster_spec(folder / name)


TARGETS: dict[str, tuple[dict[str, Any], Callable[[Path], None]]] = {
    "sweep": ({"sweep.yaml": SWEEP}, load_sweep),
    "clusters": ({"a.yaml": LOCAL, "b.yaml": QUEUE, "c.yaml": ADDRESS}, load_clusters),
}


@contextmanager
def bounded() -> Iterator[None]:
    """Turn a hang into a TimeoutError, and a memory blow-up into a MemoryError."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"not done after {HANG_SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


@pytest.mark.parametrize("kind", TARGETS)
def test_the_valid_files_are_read(kind, tmp_path):
    trees, load = TARGETS[kind]
    write({name: render(tree) for name, tree in trees.items()}, tmp_path)
    load(tmp_path)


@pytest.mark.parametrize("examples", [150, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_yaml_is_refused_or_read(kind, examples):
    trees, load = TARGETS[kind]
    counts: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write(data.draw(damaged(trees)), folder)
            try:
                with bounded():
                    load(folder)
                counts["read"] += 1
            except GenretError as error:
                text = str(error)
                assert str(folder) in text, f"names no file: {text}"
                assert error.expected or error.fix, f"says not what to do: {text}"
                assert len(text) < 20_000
                counts["refused"] += 1

    run()
    assert min(counts["read"], counts["refused"]) > examples // 50, counts


# --- commands on a broken cube ------------------------------------------------------------------


def invoke(*arguments: object) -> int:
    """Run a command; its exit code, which tells whose fault it was."""
    with bounded():
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    if result.exit_code:
        assert result.stderr.splitlines()[-1].strip(), "says something"
        assert "Error: " in result.stderr
    return result.exit_code


JSON_IN_PLACE = (
    b"[]",
    b"null",
    b"[[[[",
    b"\xff",
    b'{"zarr_format":3}',
    b'{"zarr_format":3,"node_type":"group","attributes":{"sealed":true}}',
    b'{"zarr_format":3,"node_type":"group","attributes":{"sealed":true,"spec":[1]}}',
)


def damage(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    match chance.choice(["flip", "cut", "remove", "folder", "json"]):
        case "flip":
            place = chance.randrange(len(data))
            flipped = data[place] ^ chance.randrange(1, 256)
            path.write_bytes(data[:place] + bytes([flipped]) + data[place + 1 :])
        case "cut":
            path.write_bytes(data[: chance.randrange(len(data))])
        case "remove":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
        case _:
            path.write_bytes(chance.choice(JSON_IN_PLACE))


@pytest.mark.parametrize(
    ("words", "cases"),
    [
        (["metrics", "--draws", "5"], 20),
        pytest.param(["fit", "--draws", "3"], 40, marks=pytest.mark.slow),
        pytest.param(["compare", "--draws", "5"], 40, marks=pytest.mark.slow),
        pytest.param(["report", "--draws", "3"], 40, marks=pytest.mark.slow),
        pytest.param(["explain", "--query", "x", "--model", "t5-a"], 40, marks=pytest.mark.slow),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_on_a_broken_cube_ends_in_an_error_of_ours(tmp_path, monkeypatch, words, cases):
    monkeypatch.setattr(laws, "MODELS", laws.MODELS[:2])
    run = tmp_path / "run"
    laws.write_law_cube(run / "cube.zarr", queries=8, shard=8)
    chance, codes = random.Random(words[0]), Counter()
    root = run / "cube.zarr" / "zarr.json"
    files = sorted(path for path in run.rglob("*") if path.is_file())
    for case in range(cases):
        hurt = chance.choice(files) if case % 2 else root
        whole = hurt.read_bytes()
        damage(hurt, chance)
        codes[invoke(words[0], run, *words[1:])] += 1
        if hurt.is_dir():
            hurt.rmdir()
        hurt.write_bytes(whole)
    assert set(codes) <= {0, 1, 2} and codes[1] + codes[2] > 4


# --- the real command -------------------------------------------------------------------------


def test_the_process_itself(tmp_path):
    (tmp_path / "bad.yaml").write_text("name: 3\nseeds: 1\nseeds: 2\n")
    program = "from genret_dask.cli import main; main()"
    files = ["--config", "bad.yaml", "--cluster", "bad.yaml"]
    done = subprocess.run(
        [sys.executable, "-c", program, "sweep", "--dry-run", *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.startswith("Error: ")
