"""Identifiers of candidates, sampled by tasks of some queries each."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from genret_dask.kinds import NgramsIdentifiers, spans_task
from genret_dask.study.sweep import Study
from tests.conftest import make_collection, write_beir
from tests.runs import make_spec


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    root = tmp_path_factory.mktemp("spans")
    write_beir(make_collection(), root / "beir")
    kind = NgramsIdentifiers(max_tokens=4, spans=3)
    study = Study(make_spec(root, identifiers=(kind,)), runs=root / "runs")
    study.training_tasks()
    return study


@pytest.fixture
def spans(study, monkeypatch):
    """What makes the spans of a study's candidates anew, by so many queries a task."""

    def made(size: int):
        monkeypatch.setattr(spans_task, "RANGE", size)
        kind, model = study.spec.identifiers[0], study.spec.models[0]
        artefact = study.inputs.origins.candidate_spans(kind, model)
        shutil.rmtree(artefact.folder, ignore_errors=True)
        study.inputs.candidate_spans(kind, model)
        return artefact.folder

    return made


def test_they_are_those_of_a_loop_however_tasks_are_cut(study, spans):
    kind, inputs = study.spec.identifiers[0], study.inputs
    tokenizer = inputs.tokenizer(study.spec.models[0]).folder / "tokenizer.json"
    sampler = kind.sampler(inputs.collection, tokenizer, study.spec.seed)
    documents = inputs.candidates["doc"]
    for size in (1, 5, 1000):
        found = np.load(spans(size) / spans_task.SPANS)
        assert found.shape == (*documents.shape, 3, 2) and found.dtype == np.int32
        for row, query in enumerate(inputs.queries):
            text = inputs.collection.queries[int(query)]
            for column, document in enumerate(documents[row].tolist()):
                one = -1 if document < 0 else sampler.sample(text, document)
                assert (found[row, column] == one).all()


def test_a_stage_that_was_broken_off_does_what_is_left(study, spans, monkeypatch):
    folder = spans(4)
    whole = (folder / spans_task.SPANS).read_bytes()
    done: list[int] = []
    broken: list[int] = []
    original = spans_task.run_spans

    def run(task, report):
        if len(done) == 2 and not broken:
            broken.append(task.first)
            raise KeyboardInterrupt
        done.append(task.first)
        return original(task, report)

    monkeypatch.setattr("genret_dask.study.inputs.run_spans", run)
    with pytest.raises(KeyboardInterrupt):
        spans(4)
    kind, model = study.spec.identifiers[0], study.spec.models[0]
    study.inputs.candidate_spans(kind, model)
    assert len(done) > 2 and done == sorted(set(done))
    assert (folder / spans_task.SPANS).read_bytes() == whole
    assert not (folder / "working").exists()
