"""What a run directory is made from, what is said of it before any work, and how it grows."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import LlamaConfig, LlamaForCausalLM

from genret_dask.cli import main
from genret_dask.errors import InputError, StaleError
from genret_dask.models.manifest import read_manifest
from genret_dask.shards.ledger import Ledger
from genret_dask.specs import SweepSpec
from genret_dask.specs.grid import cells_of
from genret_dask.storage.places import files_in
from genret_dask.study.origins import Origins
from genret_dask.study.survey import survey
from genret_dask.study.sweep import Study
from genret_dask.study.template import shard_tasks
from tests.findings.conftest import FEMTO, tiny_spec, write_tiny

KINDS = [{"kind": "codes", "levels": 2, "codes": 8}, {"kind": "ngrams", "spans": 3}]
TRAINING = {"examples": 64, "batch_size": 16, "evaluations": 1}


def spec_of(root: Path, models=("t5",), **changes) -> SweepSpec:
    inference = {
        "beams": [1, 5],
        "negatives": 8,
        "shard_queries": 4,
        **changes.pop("inference", {}),
    }
    return tiny_spec(
        root / "beir",
        models=[FEMTO[name] if isinstance(name, str) else name for name in models],
        inference=inference,
        identifiers=changes.pop("identifiers", KINDS),
        training={**TRAINING, **changes.pop("training", {})},
        **changes,
    )


def search(spec: SweepSpec, runs: Path, redo: bool = False) -> dict[str, float]:
    """Run a study up to its sealed cube; returns the amount of each stage that had work to do."""
    todo: dict[str, float] = {}
    study = Study(
        spec, runs=runs, progress=lambda stage, done, total: todo.update({stage: total}), redo=redo
    )
    with study.log:
        study.search()
    return todo


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """TINY, and a finished run of it."""
    root = tmp_path_factory.mktemp("runs")
    write_tiny(root / "beir")
    search(spec_of(root), root / "first")
    return root


@pytest.fixture
def run(root, tmp_path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(root / "first", tmp_path / "runs")
    return tmp_path / "runs"


def states(spec: SweepSpec, runs: Path) -> dict[str, str]:
    study = Study(spec, runs=runs)
    return {step.name: step.state for step in survey(study.inputs.origins)}


# --- A3: bytes decide, not paths -----------------------------------------------------------------


def write_llama(folder: Path, seed: int, words: int = 300) -> Path:
    from genret_dask.datasets import BeirDataset
    from genret_dask.specs import TokenizerSpec
    from genret_dask.training.tokenizer import save_tokenizer, train_tokenizer

    torch.manual_seed(seed)
    collection = BeirDataset(kind="beir", path=write_tiny(folder.parent / f"text{seed}")).load()
    tokenizer = train_tokenizer(collection, TokenizerSpec(vocab_size=words))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def ready(root, tmp_path_factory) -> Path:
    """A finished run of a pretrained model, with its weights beside it."""
    place = tmp_path_factory.mktemp("ready")
    write_llama(place / "weights", 0)
    write_tiny(place / "beir")
    search(pretrained(place, place / "weights"), place / "runs")
    return place


def pretrained(place: Path, weights: Path) -> SweepSpec:
    model = {"family": "llama", "name": "mine", "pretrained": {"path": str(weights)}}
    return spec_of(place, models=(model,), identifiers=KINDS[:1])


def test_a3_a_run_and_a_model_that_moved_are_current(ready, tmp_path):
    moved = shutil.copytree(ready, tmp_path / "elsewhere")
    assert set(states(pretrained(moved, moved / "weights"), moved / "runs").values()) == {"done"}
    (moved / "weights" / "README.md").write_text("said of the model, not read by it")
    assert set(states(pretrained(moved, moved / "weights"), moved / "runs").values()) == {"done"}


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ("weights", {"checkpoints/codes/mine", "models/codes/mine"}),
        ("tokenizer", {"tokenizers/mine", "checkpoints/codes/mine", "models/codes/mine"}),
        ("corpus", None),
    ],
)
def test_a3_other_bytes_at_the_same_place_are_stale(ready, tmp_path, change, stale):
    moved = shutil.copytree(ready, tmp_path / "elsewhere")
    if change == "weights":
        shutil.copy(
            write_llama(tmp_path / "other", 1) / "model.safetensors",
            moved / "weights" / "model.safetensors",
        )
    elif change == "tokenizer":
        shutil.copy(
            write_llama(tmp_path / "other", 2, 320) / "tokenizer.json",
            moved / "weights" / "tokenizer.json",
        )
    else:
        corpus = moved / "beir" / "corpus.jsonl"
        corpus.write_text(corpus.read_text().replace("volcano", "glacier"))
    spec = pretrained(moved, moved / "weights")
    found = states(spec, moved / "runs")
    now = {name for name, state in found.items() if state == "stale"}
    assert now == stale if stale else {"collection", "identifiers/codes"} <= now
    with pytest.raises(StaleError, match="other inputs or settings"):
        search(spec, moved / "runs")


@pytest.mark.parametrize("source", ["gguf", "embedder"])
def test_a3_bytes_of_other_sources_decide_too(root, ready, tmp_path, source):
    def made_from(place: Path) -> str:
        if source == "gguf":
            model = {"family": "llama", "name": "mine", "pretrained": {"gguf": str(place)}}
            spec = spec_of(root, models=(model,), identifiers=KINDS[:1])
            return Origins(spec, tmp_path).checkpoint(cells_of(spec)[0]).fingerprint
        embedding = {"kind": "encoder", "path": str(place)}
        spec = spec_of(root, identifiers=[{**KINDS[0], "embedding": embedding}])
        return Origins(spec, tmp_path).space(spec.identifiers[0], spec.models[0]).fingerprint

    def write(place: Path, content: bytes) -> Path:
        if source == "gguf":
            place.write_bytes(content)
            return place
        shutil.copytree(ready / "weights", place)
        (place / "model.safetensors").write_bytes(content)
        return place

    first, twin, other = (
        write(tmp_path / name, content)
        for name, content in (("one", b"some weights"), ("two", b"some weights"), ("three", b"x"))
    )
    assert made_from(first) == made_from(twin) != made_from(other)


def test_a3_a_worker_with_another_copy_of_the_weights_refuses(ready, tmp_path):
    from genret_dask.errors import ModelError
    from genret_dask.training.loop import train

    moved = shutil.copytree(ready, tmp_path / "elsewhere")
    (task,) = Study(pretrained(moved, moved / "weights"), runs=moved / "runs").training_tasks()
    shutil.rmtree(task.folder)
    shutil.copy(
        write_llama(tmp_path / "other", 3) / "model.safetensors",
        moved / "weights" / "model.safetensors",
    )
    with pytest.raises(ModelError, match="holds other bytes"):
        train(task)


def test_a3_the_seed_is_no_part_of_a_collection(root, run):
    assert states(spec_of(root, seed=5), run)["collection"] == "done"


def test_a3_an_unchanged_file_is_read_once(tmp_path, monkeypatch):
    from genret_dask.storage import sources

    monkeypatch.setenv("GENRET_CACHE", str(tmp_path / "cache"))
    read: list[Path] = []
    real = sources.sha256_file
    monkeypatch.setattr(sources, "sha256_file", lambda path: (read.append(path), real(path))[1])
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"a" * 100)
    os.utime(path, ns=(10**18, 10**18))
    first = sources.source_hash(path)
    assert sources.source_hash(path) == first and len(read) == 1
    path.write_bytes(b"b" * 100)
    second = sources.source_hash(path)
    assert second != first
    assert sources.source_hash(path) == second and len(read) == 3  # too young to be remembered
    path.write_bytes(b"a" * 100)
    os.utime(path, ns=(10**18, 10**18))  # a change that hides behind the old size and time
    if os.stat(path).st_ino:
        assert sources.source_hash(path) == first
    path.write_bytes(b"c" * 100)
    os.utime(path, ns=(10**18, 10**18))
    assert sources.recheck([tmp_path / "others"]) == []
    assert sources.recheck([tmp_path]) == [path]
    assert sources.source_hash(path) not in (first, second)


# --- B7, B8: known before it starts --------------------------------------------------------------


def test_b7_everything_stale_is_named_at_once_and_redone_alone(root, run):
    changed = spec_of(root, models=("t5", "llama"), training={"learning_rate": 0.001})
    with pytest.raises(StaleError) as error:
        search(changed, run)
    for kind in ("codes", "ngrams"):
        assert f"checkpoints/{kind}/t5: training.learning_rate was 0.002, now 0.001" in str(
            error.value
        )
        assert f"models/{kind}/t5" in str(error.value)
    assert "train 2 models (" in str(error.value) and "--redo" in str(error.value)
    assert not (run / "tiny" / "checkpoints" / "codes" / "llama").exists()
    before = {name: (run / "tiny" / name).read_bytes() for name in kept_names(run)}
    assert search(changed, run, redo=True)["export"] == 4
    assert {name: (run / "tiny" / name).read_bytes() for name in before} == before
    assert set(states(changed, run).values()) == {"done"}


def kept_names(run: Path) -> list[str]:
    names = ("collection/", "tokenizer/", "identifiers/", "candidates/", "spans/")
    return [name for name in files_in(run / "tiny") if name.startswith(names)]


def test_b7_fewer_beams_cost_the_search_alone(root, run):
    changed = spec_of(root, inference={"beams": [1]})
    with pytest.raises(StaleError, match="only the search is computed anew"):
        search(changed, run)
    assert set(search(changed, run, redo=True)) == {"search"}


def test_a_cube_of_another_format_costs_its_shards_alone(root, run, monkeypatch):
    monkeypatch.setattr("genret_dask.study.origins.FORMAT", 99)
    with pytest.raises(StaleError, match=r"cube\.zarr: format was \d+, now 99"):
        search(spec_of(root), run)
    assert set(search(spec_of(root), run, redo=True)) == {"search"}
    assert set(states(spec_of(root), run).values()) == {"done"}


def dry(root: Path, runs: Path, spec: SweepSpec, *options: str) -> Result:
    config, cluster = root / "config.yaml", root / "cluster.yaml"
    config.write_text(json.dumps(spec.model_dump(mode="json")))
    cluster.write_text(
        "version: 1\nmodule: dask.distributed\nclass: LocalCluster\nkwargs: {n_workers: 1}\n"
    )
    named = ["--cluster", str(cluster), "--config", str(config), "--runs", str(runs)]
    return CliRunner().invoke(main, ["sweep", *named, "--dry-run", *options])


def test_b8_a_dry_run_reads_the_run_directory(root, run, tmp_path):
    done = dry(root, run, spec_of(root))
    assert done.exit_code == 0 and "train 2 of 2 models" in done.stdout
    assert "cube.zarr" in next(line for line in done.stdout.splitlines() if "done" in line[:5])
    more = dry(root, run, spec_of(root, models=("t5", "llama")))
    assert more.exit_code == 0
    assert next(line for line in more.stdout.splitlines() if line.startswith("to do")).endswith(
        "train 2 of 4 models, export 2 of 4 models"
    )
    assert 'order was ["t5"], now ["t5", "llama"]' in more.stdout
    changed = spec_of(root, training={"learning_rate": 0.001})
    stale = dry(root, run, changed)
    assert stale.exit_code == 2 and "learning_rate was 0.002, now 0.001" in stale.stderr
    with pytest.raises(StaleError) as error:
        search(changed, run)
    assert str(error.value) in stale.stderr
    anew = dry(root, run, changed, "--redo")
    assert anew.exit_code == 0 and "train 2 models" in anew.stdout
    assert dry(root, tmp_path / "none", spec_of(root)).exit_code == 0
    assert not (tmp_path / "none").exists()


# --- B9: a run grows -----------------------------------------------------------------------------

SMALL = {"inference": {"queries": 3}}
GROWN = {"models": ("t5", "llama"), "inference": {"beams": [1, 5, 10]}}


def files(run: Path) -> dict[str, bytes]:
    names = [one for one in files_in(run) if one.startswith(("cube.zarr", "markers", "seal"))]
    return {name: (run / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def once(root, tmp_path_factory) -> dict[str, bytes]:
    """The cube of the grown study, made at once."""
    runs = tmp_path_factory.mktemp("once")
    search(spec_of(root, **GROWN), runs)
    return files(runs / "tiny")


def test_b9_by_models_queries_and_beams_it_is_the_run_made_at_once(root, once, tmp_path):
    grown = tmp_path / "grown"
    search(spec_of(root, **SMALL), grown)
    steps = [
        ({"models": ("t5", "llama"), **SMALL}, {"train", "export", "search"}, 2 * 3),
        ({"models": ("t5", "llama")}, {"search"}, 4 * 6),
        (GROWN, {"search"}, 4 * 6),
    ]
    exports = {}
    for changes, stages, queries in steps:
        todo = search(spec_of(root, **changes), grown)
        assert {stage for stage in todo if stage in ("train", "export", "search")} == stages
        assert todo["search"] == queries
        now = {
            path: read_manifest(path).fingerprint
            for path in (grown / "tiny" / "models").glob("*/*")
        }
        assert exports.items() <= now.items()
        exports = now
    one = files(grown / "tiny")
    assert one.keys() == once.keys()
    assert [name for name in one if one[name] != once[name]] == []


def test_b9_more_beams_leave_the_losses_as_they_are(root, run):
    cube = run / "tiny" / "cube.zarr"
    chunks = [name for name in files_in(cube) if "/contrast/" in name and "/c/" in name]
    before = {name: (cube / name).stat().st_mtime_ns for name in chunks if "logit" in name}
    search(spec_of(root, inference={"beams": [1, 5, 10]}), run)
    assert before and {name: (cube / name).stat().st_mtime_ns for name in before} == before


def test_b9_more_queries_keep_those_that_were_there(root):
    def sample(queries: int | None) -> list[int]:
        study = Study(spec_of(root, inference={"queries": queries}), runs=root / "first")
        return study.inputs.queries.tolist()

    assert sample(3) == sample(5)[:3] == sample(None)[:3]
    assert len(np.unique(sample(None))) == 6


def test_b9_interrupted_while_it_grows_it_goes_on(root, run, once, monkeypatch):
    from genret_dask.cube import store

    grown = spec_of(root, **GROWN)

    def stop(path, template):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "restore_template", stop)
    with pytest.raises(KeyboardInterrupt):
        search(grown, run)
    monkeypatch.undo()
    search(grown, run)
    assert files(run / "tiny") == once


# --- what is current, redone and counted ----------------------------------------------------------


def test_a_checkpoint_of_other_settings_is_stale_without_its_tokeniser_too(root, run):
    shutil.rmtree(run / "tiny" / "tokenizer")
    assert states(spec_of(root), run)["checkpoints/ngrams/t5"] == "done"
    changed = spec_of(root, training={"learning_rate": 0.001})
    assert states(changed, run)["checkpoints/ngrams/t5"] == "stale"


def test_a_permission_makes_nothing_stale(root, run):
    allowed = spec_of(root, identifiers=[KINDS[0], {**KINDS[1], "allow_unreachable": True}])
    assert set(states(allowed, run).values()) == {"done"}


def test_a_damaged_manifest_is_redone(root, run):
    (run / "tiny" / "models" / "codes" / "t5" / "manifest.json").write_text("{}")
    assert states(spec_of(root), run)["models/codes/t5"] == "stale"
    assert search(spec_of(root), run, redo=True)["export"] == 1


def test_indexes_of_a_tokeniser_that_is_no_more_go_with_it(root, run):
    from genret_dask.run.status import what_is_done

    (before,) = (run / "tiny" / "identifiers" / "ngrams").iterdir()
    changed = spec_of(root, tokenizer={"vocab_size": 380})
    search(changed, run, redo=True)
    (after,) = (run / "tiny" / "identifiers" / "ngrams").iterdir()
    assert after.name != before.name
    spans = {path.name for path in (run / "tiny" / "spans").iterdir()}
    assert spans == {f"candidates-{after.name}"}
    assert "2 of 2 identifier spaces" in what_is_done(run / "tiny")


def test_a_run_that_grows_says_how_far_it_is_of_what_it_becomes(root, run):
    from genret_dask.run.status import what_is_done

    grown = spec_of(root, models=("t5", "llama"))
    Study(grown, runs=run).train()
    assert "4 of 4 models trained, 2 of 4 exported" in what_is_done(run / "tiny", grown)


def test_what_a_redo_costs_counts_the_losses_of_models_that_are_trained_anew(root, run):
    changed = spec_of(root, training={"learning_rate": 0.001}, inference={"beams": [1]})
    with pytest.raises(StaleError, match="search and score the shards"):
        search(changed, run)


def test_everything_in_the_way_is_said_at_once(root, run):
    models = ("t5", {"family": "t5", "name": "other", "size": "giant"})
    changed = spec_of(
        root, models=models, training={"learning_rate": 0.001}, inference={"memory": "2MB"}
    )
    with pytest.raises(InputError) as error:
        search(changed, run)
    assert "2 things are in the way" in str(error.value)
    assert "no size 'giant'" in str(error.value) and "learning_rate" in str(error.value)
    small = spec_of(root, training={"learning_rate": 0.001}, inference={"memory": "2MB"})
    with pytest.raises(InputError, match="(?s)memory budget.*learning_rate"):
        search(small, run)
    shown = dry(root, run, small)
    assert shown.exit_code == 2 and "2 things are in the way" in shown.stderr


@pytest.mark.parametrize("text", ["[]", '{"a": 5}', "{", '{"a": [1]}'])
def test_a_damaged_memory_of_hashes_is_no_memory(tmp_path, monkeypatch, text):
    from genret_dask.storage import sources

    monkeypatch.setenv("GENRET_CACHE", str(tmp_path))
    (tmp_path / "file").write_text("x")
    (tmp_path / "hashes.json").write_text(text.replace('"a"', json.dumps(str(tmp_path / "file"))))
    assert len(sources.source_hash(tmp_path / "file")) == 64
    assert sources.recheck([tmp_path]) == []


def test_writers_of_the_memory_of_hashes_lose_nothing(tmp_path, monkeypatch):
    from genret_dask.storage import sources

    monkeypatch.setenv("GENRET_CACHE", str(tmp_path / "cache"))
    paths = [tmp_path / f"file{number}" for number in range(40)]
    for path in paths:
        path.write_text(path.name)
        os.utime(path, ns=(10**18, 10**18))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(sources.source_hash, paths))) == 40
    assert len(json.loads((tmp_path / "cache" / "hashes.json").read_text())) == 40


def test_a_shard_to_be_computed_again_keeps_nothing(root, run):
    study = Study(spec_of(root), runs=run)
    ledger, shards = Ledger(run / "tiny" / "markers"), shard_tasks(study.make_template())
    marker = (run / "tiny" / "markers" / f"{shards[0].key}.json").read_bytes()
    (run / "tiny" / "markers" / f"{shards[0].key}.kept.json").write_bytes(marker)
    assert ledger.kept(shards[0])
    ledger.drop(shards[0])
    assert not ledger.read(shards[0]) and not ledger.kept(shards[0])
