"""Damage of any file of a run is found, and repair redoes that alone."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from genret_dask.errors import GenretError, InputError
from genret_dask.run.verification import verify_run
from genret_dask.shards.task import run_shard
from genret_dask.study.repair import repair_run
from genret_dask.study.sweep import Study
from tests.conftest import make_collection, write_beir
from tests.shards.test_shards import differing, make_spec

UNVOUCHED = ("resources.json", "spec.json", "log.jsonl", "failures.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with a collection and a finished run."""
    root = tmp_path_factory.mktemp("verification")
    write_beir(make_collection(), root / "beir")
    study = Study(make_spec(root), runs=root / "runs")
    study.search()
    study.analyse()
    return root


@pytest.fixture
def root(whole, tmp_path) -> Path:
    shutil.copytree(whole / "runs", tmp_path / "runs")
    return tmp_path


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 16
    path.write_bytes(content)


def same_json(before: bytes, after: bytes) -> bool:
    try:
        return json.loads(before) == json.loads(after)
    except ValueError:
        return False


def one_of(run: Path, pattern: str) -> Path:
    return sorted(path for path in run.glob(pattern) if path.is_file())[0]


def test_a_whole_run_has_no_damage(whole):
    assert verify_run(whole / "runs" / "toy") == []


@pytest.mark.parametrize("flips", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_a_flipped_byte_of_any_file_is_found(root, flips):
    """Each of a random byte of a random file, alone."""
    run = root / "runs" / "toy"
    files = [path for path in run.rglob("*") if path.is_file()]
    files = [
        path
        for path in files
        if path.name not in UNVOUCHED and path.parent.name != ".lease" and path.stat().st_size
    ]
    rng = random.Random(0)
    chosen = [rng.choice(files) for _ in range(flips)]
    missed = []
    for path in chosen:
        before = path.read_bytes()
        content = bytearray(before)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        if not verify_run(run):
            missed.append((path.relative_to(run).as_posix(), before, bytes(content)))
        path.write_bytes(before)
    # White space of a record's JSON may change without changing what it says.
    assert not [name for name, before, after in missed if not same_json(before, after)]
    assert len(missed) < 10


SHARDS = [
    ("cube.zarr/codes/search/score/c/1/**/*", "shard"),
    ("cube.zarr/ngrams/contrast/logit/c/0/**/*", "shard"),
    ("markers/*.json", "shard"),
]
OTHERS = [
    ("cube.zarr/zarr.json", "seal"),
    ("cube.zarr/codes/contrast/doc/c/0/0", "seal"),
    ("models/codes/t5/manifest.json", "artefact"),
    ("models/codes/t5/step.onnx", "artefact"),
    ("identifiers/ngrams/*/part-00001/suffixes.npy", "artefact"),
    ("collection/beir/corpus.jsonl.gz", "artefact"),
    ("checkpoints/codes/t5/model.safetensors", "artefact"),
]
RARER = [
    ("cube.zarr/codes/search/logit/zarr.json", "seal"),
    ("seal.json", "seal"),
    ("models/ngrams/llama/weights.bin", "artefact"),
    ("models/ngrams/llama/tokenizer.json", "artefact"),
    ("tokenizer/tokenizer.json", "artefact"),
    ("identifiers/ngrams/*/index.json", "artefact"),
    ("identifiers/codes/codes.npy", "artefact"),
    ("candidates/doc.npy", "artefact"),
    ("spans/*/candidates.npy", "artefact"),
    ("checkpoints/codes/t5/artefact.json", "artefact"),
    ("results/metrics.json", "artefact"),
]


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [*SHARDS, *OTHERS, *(pytest.param(*one, marks=pytest.mark.slow) for one in RARER)],
)
def test_repair_redoes_what_is_damaged_and_nothing_else(root, whole, monkeypatch, pattern, kind):
    run = root / "runs" / "toy"
    flip(one_of(run, pattern))
    damages = verify_run(run)
    assert damages and {damage.kind for damage in damages} <= {kind, "seal"}
    again = []
    monkeypatch.setattr(
        "genret_dask.study.search.run_shard",
        lambda task, *rest: (again.append(task.key), run_shard(task, *rest))[1],
    )
    study = Study(make_spec(whole), runs=root / "runs")
    repair_run(study, damages)
    study.analyse()
    assert len(again) == (kind == "shard")
    assert verify_run(run) == []
    assert not differing(whole / "runs" / "toy" / "cube.zarr", study.cube)


def test_what_is_damaged_is_refused_in_use(root, whole):
    run = root / "runs" / "toy"
    flip(one_of(run, "identifiers/ngrams/*/part-00001/suffixes.npy"))
    flip(one_of(run, "markers/search.ngrams.*"))
    with pytest.raises(GenretError, match=r"suffixes\.npy has sha256"):
        Study(make_spec(whole), runs=root / "runs").search()


def test_a_lost_chunk_and_a_lost_marker_are_found(root):
    run = root / "runs" / "toy"
    one_of(run, "cube.zarr/codes/search/score/c/1/**/*").unlink()
    one_of(run, "markers/search.ngrams.*").unlink()
    found = sorted(damage.found for damage in verify_run(run))
    assert len(found) == 2 and "lost its chunk" in found[1] and "is missing" in found[0]


def test_leftovers_are_found_and_removed(root, whole):
    run = root / "runs" / "toy"
    (run / "models" / "x.host-1-abc.partial" / "deep").mkdir(parents=True)
    (run / "models" / "x.host-1-abc.partial" / "deep" / "artefact.json").write_text("{")
    (run / "markers" / "y.json.host-2-abc.partial").write_text("")
    damages = verify_run(run)
    assert [damage.kind for damage in damages] == ["leftover"] * 2
    repair_run(Study(make_spec(whole), runs=root / "runs"), damages)
    assert verify_run(run) == [] and not list(run.rglob("*.partial"))


def test_an_unfinished_run_is_not_damaged(root):
    run = root / "runs" / "toy"
    shutil.rmtree(run / "cube.zarr")
    shutil.rmtree(run / "markers")
    assert verify_run(run) == []


def test_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing at"):
        verify_run(tmp_path / "none")
