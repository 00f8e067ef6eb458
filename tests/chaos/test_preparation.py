"""Workers that are killed while the inputs of the models are made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from genret_dask.identifiers import embed_task
from genret_dask.kinds import CodesIdentifiers, NgramsIdentifiers, spans_task
from genret_dask.storage.artefacts import RECORD
from genret_dask.storage.places import PARTIAL
from genret_dask.study.sweep import Study
from genret_dask.study.tasks import exported_models
from tests.chaos.conftest import cluster, kill
from tests.conftest import make_collection, write_beir
from tests.runs import differing, make_spec

pytestmark = pytest.mark.chaos

STAGES = ("embedding", "index", "spans of candidates")
MADE = ("collection", "tokenizer", "identifiers", "spans", "candidates")


def prepared(study: Study) -> Path:
    """Make all that models are trained from and searched with."""
    study.training_tasks()
    exported_models(study.inputs)
    return study.folder


def parts_of(run: Path) -> dict[Path, int]:
    """When each artefact of a run was published; one that is still being written was not."""
    found = (path for path in run.rglob(RECORD) if not path.parent.name.endswith(PARTIAL))
    return {path: path.stat().st_mtime_ns for path in found}


def test_workers_killed_in_every_stage_lose_nothing(tmp_path, monkeypatch):
    for module, name, value in (
        (embed_task, "SAMPLE", 50),
        (embed_task, "RANGE", 20),
        (spans_task, "RANGE", 4),
    ):
        monkeypatch.setattr(module, name, value)
    write_beir(make_collection(120), tmp_path / "beir")
    kinds = CodesIdentifiers(levels=2, codes=6), NgramsIdentifiers(part_characters=2000)
    spec = make_spec(tmp_path, identifiers=kinds)
    oracle = prepared(Study(spec, runs=tmp_path / "serial"))
    run = tmp_path / "runs" / spec.name
    there: dict[str, dict[Path, int]] = {}
    again: list[Path] = []
    with cluster() as client:

        def progress(stage, done, total):
            if stage in STAGES and 0 < done < total and stage not in there:
                there[stage] = parts_of(run)
                killed = client.run(lambda dask_worker: os.getpid()).values()
                assert all(map(kill, killed))
            elif stage in there and done == total:
                after = parts_of(run)
                again.extend(path for path, made in there[stage].items() if after[path] != made)

        prepared(Study(spec, client, runs=tmp_path / "runs", progress=progress))
    assert {*there} == {*STAGES} and not again
    found = [name for one in MADE for name in differing(oracle / one, run / one)]
    assert not [name for name in found if f"{PARTIAL}/" not in name]  # what the killed left
