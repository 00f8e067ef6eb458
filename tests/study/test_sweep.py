"""A study in two precisions, from the spec to what it says of them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from genret_dask import open_cube
from genret_dask.cli.sweep import _print_results
from genret_dask.errors import ModelError
from genret_dask.metrics import cgl
from genret_dask.models.manifest import read_manifest, write_manifest
from genret_dask.specs import ExportSpec
from genret_dask.specs.grid import models_of
from genret_dask.study.estimate import estimate
from genret_dask.study.sweep import Study
from tests.runs import copy_models, make_spec

MODELS = ["t5", "t5.int8", "llama", "llama.int8"]


@pytest.fixture(scope="module")
def study(toy, tmp_path_factory) -> Study:
    """From the toy run's checkpoints."""
    runs = tmp_path_factory.mktemp("study")
    copy_models(toy, runs)
    shutil.rmtree(runs / "toy" / "models")
    study = Study(make_spec(toy, export=ExportSpec(precision=("fp32", "int8"))), runs=runs)
    study.search()
    study.analyse()
    return study


def test_every_cell_is_a_model_in_every_precision(study):
    assert models_of(study.spec) == dict.fromkeys(("codes", "ngrams"), MODELS)
    for kind in ("codes", "ngrams"):
        folder = study.folder / "models" / kind
        assert sorted(path.name for path in folder.iterdir()) == sorted(MODELS)
        for name in MODELS:
            manifest = read_manifest(folder / name)
            assert manifest.precision == ("int8" if name.endswith("int8") else "fp32")
    tree = open_cube(study.folder)
    for part in ("codes/search", "codes/contrast", "ngrams/search", "ngrams/contrast"):
        data = tree[part].to_dataset()
        assert data["model"].values.tolist() == MODELS
        assert data["precision"].values.tolist() == ["fp32", "int8"] * 2
        assert len(set(data["checkpoint"].values.tolist())) == 4
        assert np.isfinite(data["logit"].values).reshape(4, -1).any(axis=1).all()
    markers = {path.name for path in (study.folder / "markers").rglob("*.json")}
    assert {name.partition("-")[0] for name in markers} == {
        f"search.{kind}.{model}" for kind in ("codes", "ngrams") for model in MODELS
    }


def test_the_change_is_reported_beside_the_cube(study):
    contrast = open_cube(study.folder)["codes/contrast"].to_dataset()
    loss = cgl(contrast).mean("query").compute()
    found = json.loads((study.folder / "results" / "precision.json").read_text())
    assert found == study.analyse()["precision"]
    assert [record["model"] for record in found] == ["t5.int8", "llama.int8"] * 2
    for record in found[:2]:
        change = float(loss.sel(model=record["model"])) - float(loss.sel(model=record["twin"]))
        assert record["cgl"]["mean"] == pytest.approx(change, rel=1e-6)
        assert record["cgl"]["low"] <= change <= record["cgl"]["high"]


def test_the_sweep_prints_the_change(study, capsys):
    _print_results(study, study.cube, study.analyse())
    lines = capsys.readouterr().out.splitlines()
    table = next(row for row, line in enumerate(lines) if "CGL less fp32's" in line)
    rows = [line.split()[:2] for line in lines[table + 2 : table + 6]]
    assert rows == [
        [kind, model] for kind in ("codes", "ngrams") for model in ("t5.int8", "llama.int8")
    ]


def test_a_study_in_fp32_alone_has_the_same_models_and_no_report(study, toy, tmp_path):
    shutil.copytree(toy / "serial", tmp_path / "runs")
    exact = Study(make_spec(toy), runs=tmp_path / "runs")
    assert "precision" not in exact.analyse()
    assert not (exact.folder / "results" / "precision.json").exists()
    for name in ("t5", "llama"):
        first, second = (
            read_manifest(run.folder / "models" / "codes" / name).files for run in (study, exact)
        )
        assert first == second


def test_a_folder_of_another_precision_is_refused(study):
    folder = study.folder / "models" / "codes" / "t5.int8"
    manifest = read_manifest(folder)
    write_manifest(folder, manifest.model_copy(update={"precision": "fp16"}))
    try:
        with pytest.raises(ModelError, match=r"t5\.int8 was exported from another checkpoint"):
            study.export()
    finally:
        write_manifest(folder, manifest)


def test_the_estimate_counts_precisions(study):
    plans = [
        estimate(study.spec.model_copy(update={"export": export}), study.collection)
        for export in (ExportSpec(), ExportSpec(precision=("fp32", "int8")))
    ]
    assert plans[1].models == MODELS
    assert [plan.train_tasks for plan in plans] == [4, 4]
    for name in ("export_tasks", "shards", "cube_bytes", "search_flops"):
        assert getattr(plans[1], name) == 2 * getattr(plans[0], name)
    assert plans[0].train_flops == plans[1].train_flops
