"""Commands on damaged input: an exit code, an error of ours, and never a traceback."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings

from genret_dask.cli import main
from genret_dask.errors import GenretError
from genret_dask.specs import load_spec
from tests.conftest import make_collection, write_beir
from tests.fits import conftest as laws
from tests.hostile.mutations import YAML, Content, Source, damaged, write
from tests.hostile.targets import SWEEP, TARGETS
from tests.hostile.test_fuzz import bounded

FUZZ = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


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


@pytest.fixture(scope="module")
def beir(tmp_path_factory) -> Path:
    return write_beir(make_collection(12), tmp_path_factory.mktemp("beir") / "beir")


def fresh(root: Path, files: dict[str, Content]) -> Path:
    shutil.rmtree(root / "input", ignore_errors=True)
    write(files, root / "input")
    return root / "input"


def asks_for_docstrings(path: Path) -> bool:
    """Whether what is left is the default study, which takes its time."""
    try:
        return load_spec(path).dataset.kind == "pydoc"
    except GenretError:
        return False


def test_sweep_dry_run(tmp_path_factory, beir):
    root, codes = tmp_path_factory.mktemp("sweep"), Counter()
    tree = {**SWEEP, "dataset": {"kind": "beir", "path": str(beir)}, "models": SWEEP["models"][:2]}
    sources = {
        "sweep.yaml": Source(tree, YAML),
        "cluster.yaml": TARGETS["cluster"].sources["a.yaml"],
    }

    @FUZZ
    @given(damaged(sources))
    def run(files):
        folder = fresh(root, files)
        assume(not asks_for_docstrings(folder / "sweep.yaml"))
        options = ["--config", folder / "sweep.yaml", "--cluster", folder / "cluster.yaml"]
        codes[invoke("sweep", "--dry-run", *options)] += 1

    run()
    assert set(codes) <= {0, 2} and codes[2] > 10


@pytest.mark.parametrize("kind", ["beir", "beir-gz"])
def test_datasets_validate(tmp_path_factory, kind):
    root, codes = tmp_path_factory.mktemp("validate"), Counter()

    @FUZZ
    @given(damaged(TARGETS[kind].sources))
    def run(files):
        codes[invoke("datasets", "validate", fresh(root, files))] += 1

    run()
    assert set(codes) <= {0, 2} and codes[2] > 10


def test_fit_points(tmp_path_factory):
    root, codes = tmp_path_factory.mktemp("points"), Counter()

    @FUZZ
    @given(damaged(TARGETS["points"].sources))
    def run(files):
        path = fresh(root, files) / "points.csv"
        codes[invoke("fit", "--points", path, "--draws", 3)] += 1

    run()
    assert set(codes) <= {0, 2} and codes[2] > 10


# --- run directories --------------------------------------------------------------------------

COMMANDS = (
    ["metrics", "RUN", "--draws", "5"],
    ["fit", "RUN", "--draws", "3"],
    ["compare", "RUN", "--draws", "5"],
    ["report", "RUN", "--draws", "3"],
    ["explain", "RUN", "--query", "x", "--model", "t5-a"],
)
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


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_broken_run_directory(tmp_path, monkeypatch, command):
    monkeypatch.setattr(laws, "MODELS", laws.MODELS[:2])
    laws.write_law_cube(tmp_path / "run" / "cube.zarr", queries=8, shard=8)
    chance, codes = random.Random(command[0]), Counter()
    root = tmp_path / "run" / "cube.zarr" / "zarr.json"
    files = sorted(path for path in (tmp_path / "run").rglob("*") if path.is_file())
    for case in range(14):
        hurt = chance.choice(files) if case % 2 else root
        whole = hurt.read_bytes()
        damage(hurt, chance)
        codes[invoke(*(tmp_path / "run" if word == "RUN" else word for word in command))] += 1
        if hurt.is_dir():
            hurt.rmdir()
        hurt.write_bytes(whole)
    assert set(codes) <= {0, 1, 2} and codes[1] + codes[2] > 4


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_run_directory_at_all(tmp_path, command):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for place in ("nothing", "file", "empty"):
        words = [tmp_path / place if word == "RUN" else word for word in command]
        assert invoke(*words) in (1, 2)


# --- the real command -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["sweep", "--dry-run", "--config", "bad.yaml", "--cluster", "bad.yaml"], 2),
        (["datasets", "validate", "bad.yaml"], 2),
        (["fit", "--points", "bad.yaml"], 2),
        (["metrics", "."], 2),
    ],
)
def test_the_process_itself(tmp_path, arguments, code):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"name": 3, "seeds": 1}) + "seeds: 2\n")
    program = "from genret_dask.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.startswith("Error: ")
