"""Damage of any file of a run is found, and repair redoes that alone."""

from __future__ import annotations

import json
import random
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from genret_dask.errors import GenretError, InputError
from genret_dask.run.verification import Damage, verify_run
from genret_dask.shards.task import run_shard
from genret_dask.specs.registry import entry
from genret_dask.study.repair import repair_run
from genret_dask.study.sweep import Study
from tests.runs import differing, make_spec

SHARD_QUERIES = 8
UNVOUCHED = ("resources.json", "spec.json", "log.jsonl", "failures.json")


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory) -> Path:
    """A folder with a finished run that was analysed."""
    root = tmp_path_factory.mktemp("verification")
    shutil.copytree(toy / "serial", root / "runs")
    Study(make_spec(toy), runs=root / "runs").analyse()
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


def shard_of(name: str) -> tuple | None:
    """Kind, model and row of the shard that a chunk belongs to."""
    match name.split("/"):
        case ["cube.zarr", kind, dataset, variable, "c", model, row, *_]:
            if kind != "baselines" and variable in entry("identifiers", kind)().variables[dataset]:
                return kind, int(model), int(row)
    return None


def part_of(name: str) -> str:
    """The part of a run that a file is damaged with; one part would hide the damage of another."""
    if name == "cube.zarr/zarr.json" or "/model/c/" in name:
        return "root"
    if name.startswith("cube.zarr/") and not shard_of(name):
        return "metadata"
    return "markers" if name.startswith(("markers/", "seal.json")) else "shards and artefacts"


def owner(run: Path, name: str) -> object:
    """Of the files with one owner, one is damaged at a time."""
    if part_of(name) == "root":
        return "root"
    if part_of(name) != "shards and artefacts":
        return name
    records = ("artefact.json", "manifest.json", "index.json")
    folders = [one for one in (run / name).parents if any((one / r).exists() for r in records)]
    return shard_of(name) or (folders or [name])[0]


def names(damage: Damage, name: str) -> bool:
    if damage.shard is not None and (chunk := shard_of(name)):
        shard = damage.shard
        return (shard.kind, shard.model, shard.start // SHARD_QUERIES) == chunk
    return name == damage.place or name.startswith(f"{damage.place}/")


@pytest.mark.parametrize("part", ["root", "metadata", "markers", "shards and artefacts"])
def test_a_flipped_byte_of_any_file_is_found(root, part):
    """Each round flips a random byte of a random file of every owner."""
    run = root / "runs" / "toy"
    owned = defaultdict(list)
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        vouched = path.name not in UNVOUCHED and path.parent.name != ".lease"
        if path.is_file() and path.stat().st_size and vouched and part_of(name) == part:
            owned[owner(run, name)].append(name)
    rng = random.Random(0)
    for _ in range(2):
        before = {name: (run / name).read_bytes() for name in map(rng.choice, owned.values())}
        for name, content in before.items():
            changed = bytearray(content)
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            (run / name).write_bytes(changed)
        damages = verify_run(run)
        for name, content in before.items():
            # White space of a record's JSON may change without changing what it says.
            found = any(names(damage, name) for damage in damages)
            assert found or same_json(content, (run / name).read_bytes()), name
            (run / name).write_bytes(content)
    assert verify_run(run) == []


SHARDS = [
    "cube.zarr/codes/search/score/c/1/**/*",
    "cube.zarr/ngrams/contrast/logit/c/0/**/*",
    "markers/search.ngrams.llama*.json",
]
METADATA = [
    "cube.zarr/codes/contrast/doc/c/0/0",
    "cube.zarr/codes/search/logit/zarr.json",
    "cube.zarr/baselines/bm25/score/c/0/0",
]
ARTEFACTS = [
    "models/codes/t5/manifest.json",
    "models/codes/llama/step.onnx",
    "models/ngrams/llama/weights.bin",
    "models/ngrams/t5/tokenizer.json",
    "identifiers/ngrams/*/index.json",
    "identifiers/ngrams/*/part-00001/suffixes.npy",
    "identifiers/codes/codes.npy",
    "collection/columns/documents.arrow",
    "checkpoints/codes/t5/model.safetensors",
    "checkpoints/codes/llama/artefact.json",
    "tokenizer/tokenizer.json",
    "candidates/doc.npy",
    "models/codes/llama/carried/search.json",
    "baselines/bm25/doc.npy",
    "spans/*/candidates.npy",
    "results/metrics.json",
    "models/codes/llama/carried/identifiers/codes.npy",
    "models/ngrams/llama/carried/search.json",
]


@pytest.mark.parametrize(
    ("patterns", "kind"),
    [
        (SHARDS, "shard"),
        (METADATA, "seal"),
        (["cube.zarr/zarr.json"], "seal"),
        (["seal.json"], "seal"),
        (ARTEFACTS, "artefact"),
    ],
    ids=["shards", "metadata", "root", "seal", "artefacts"],
)
def test_repair_redoes_what_is_damaged_and_nothing_else(
    toy, root, whole, monkeypatch, patterns, kind
):
    run = root / "runs" / "toy"
    for pattern in patterns:
        flip(one_of(run, pattern))
    damages = verify_run(run)
    assert {damage.kind for damage in damages} <= {kind, "seal"}
    assert len([damage for damage in damages if damage.kind == kind]) >= len(patterns)
    again = []
    monkeypatch.setattr(
        "genret_dask.study.search.run_shard",
        lambda task, *rest: (again.append(task.key), run_shard(task, *rest))[1],
    )
    study = Study(make_spec(toy), runs=root / "runs")
    repair_run(study, damages)
    study.analyse()
    assert len(again) == (len(patterns) if kind == "shard" else 0)
    assert verify_run(run) == []
    assert not differing(whole / "runs" / "toy" / "cube.zarr", study.cube)


def test_what_is_damaged_is_refused_in_use(toy, root, whole):
    run = root / "runs" / "toy"
    flip(one_of(run, "identifiers/ngrams/*/part-00001/suffixes.npy"))
    flip(one_of(run, "markers/search.ngrams.*"))
    with pytest.raises(GenretError, match=r"suffixes\.npy has sha256"):
        Study(make_spec(toy), runs=root / "runs").search()


def test_a_lost_chunk_and_a_lost_marker_are_found(root):
    run = root / "runs" / "toy"
    one_of(run, "cube.zarr/codes/search/score/c/1/**/*").unlink()
    one_of(run, "markers/search.ngrams.*").unlink()
    found = sorted(damage.found for damage in verify_run(run))
    assert len(found) == 2 and "lost its chunk" in found[1] and "is missing" in found[0]


def test_leftovers_are_found_and_removed(toy, root, whole):
    run = root / "runs" / "toy"
    (run / "models" / "x.host-1-abc.partial" / "deep").mkdir(parents=True)
    (run / "models" / "x.host-1-abc.partial" / "deep" / "artefact.json").write_text("{")
    (run / "markers" / "y.json.host-2-abc.partial").write_text("")
    damages = verify_run(run)
    assert [damage.kind for damage in damages] == ["leftover"] * 2
    repair_run(Study(make_spec(toy), runs=root / "runs"), damages)
    assert verify_run(run) == [] and not list(run.rglob("*.partial"))


def test_an_unfinished_run_is_not_damaged(root):
    run = root / "runs" / "toy"
    shutil.rmtree(run / "cube.zarr")
    shutil.rmtree(run / "markers")
    assert verify_run(run) == []


def test_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing at"):
        verify_run(tmp_path / "none")
