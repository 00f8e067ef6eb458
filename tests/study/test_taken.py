"""A finished run's models, searched with other beams, queries or documents."""

from __future__ import annotations

import json
import shutil

import pytest
import xarray as xr
import yaml
from click.testing import CliRunner

from genret_dask import cli
from genret_dask.errors import InputError, SpecError
from genret_dask.run.verification import verify_run
from genret_dask.specs import load_spec
from genret_dask.study.sweep import Study
from tests.runs import copy_models, make_spec

NEITHER = ("train", "export", "tokenizer")


@pytest.fixture(scope="module")
def run(toy):
    return toy / "serial" / "toy"


def spec_of(tmp_path, run, **content):
    file = tmp_path / "again.yaml"
    file.write_text(yaml.safe_dump({"name": "again", "models_from": str(run), **content}))
    return load_spec(file)


def searched(spec, tmp_path):
    stages = []
    study = Study(spec, runs=tmp_path / "runs", progress=lambda stage, *_: stages.append(stage))
    study.search()
    assert not {*stages} & {*NEITHER}
    return study


def beir_of(toy, folder, **changes):
    """The toy's collection with lines of some files changed."""
    shutil.copytree(toy / "beir", folder)
    for name, change in changes.items():
        path = folder / f"{name}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(change(line)) + "\n" for line in lines))
    return {"kind": "beir", "path": str(folder)}


def test_the_same_queries_give_the_same_values_and_nothing_is_made(toy, run, tmp_path):
    spec = spec_of(tmp_path, run, inference={"beams": [3]})
    assert spec.models == make_spec(toy).models and spec.inference.negatives == 12
    study = searched(spec, tmp_path)
    for kind in ("codes", "ngrams"):
        for group in ("search", "contrast"):
            mine, theirs = (
                xr.open_zarr(cube, group=f"{kind}/{group}").load()
                for cube in (study.cube, run / "cube.zarr")
            )
            if group == "search":
                theirs = theirs.sel(beam=[3])
                slots = {name: slice(mine.sizes.get(name)) for name in ("rank", "ngram")}
                theirs = theirs.isel(slots, missing_dims="ignore")
            assert {"score", "logit"} & {*mine.data_vars}
            xr.testing.assert_equal(mine.drop_attrs(), theirs.drop_attrs())
    assert verify_run(study.folder) == []
    weights = "checkpoints/codes/t5/model.safetensors"
    assert (study.folder / weights).samefile(run / weights)


def test_other_queries_of_the_same_documents(toy, run, tmp_path):
    other = beir_of(
        toy, tmp_path / "other", queries=lambda line: {**line, "text": f"about {line['text']}"}
    )
    study = searched(spec_of(tmp_path, run, dataset=other), tmp_path)
    tree = xr.open_datatree(study.cube, engine="zarr")
    assert all(str(text).startswith("about ") for text in tree["codes/search"]["text"].values)
    manifest = "manifest.json"
    for name in ("codes/t5", "ngrams/llama"):
        ours, theirs = (one / "models" / name / manifest for one in (study.folder, run))
        assert ours.read_bytes() == theirs.read_bytes()
    # It stands by itself: nothing is asked of the run again.
    again = study.spec.model_copy(update={"models_from": tmp_path / "gone"})
    assert Study(again, runs=tmp_path / "runs").search() == study.cube


def test_other_documents_are_for_kinds_that_are_made_of_the_models_tokens(toy, run, tmp_path):
    other = beir_of(
        toy, tmp_path / "other", corpus=lambda line: {**line, "text": f"{line['text']} indeed"}
    )
    with pytest.raises(InputError, match="the codes of .* are identifiers of other documents"):
        Study(spec_of(tmp_path, run, dataset=other), runs=tmp_path / "runs").search()
    assert not (tmp_path / "runs" / "again" / "spec.json").exists()

    ngrams = make_spec(toy).identifiers[1:]
    study = Study(make_spec(toy, identifiers=ngrams), runs=tmp_path / "runs")
    copy_models(toy, tmp_path / "runs")
    study.search()
    found = searched(spec_of(tmp_path, study.folder, dataset=other), tmp_path)
    theirs, ours = (
        {path.name for path in (one / "identifiers" / "ngrams").iterdir()}
        for one in (study.folder, found.folder)
    )
    assert ours == theirs  # of the same tokeniser, and made anew for other documents
    assert not (found.folder / "identifiers" / "ngrams" / ours.pop() / "index.json").samefile(
        study.folder / "identifiers" / "ngrams" / theirs.pop() / "index.json"
    )


def test_a_plan_says_that_only_the_search_is_left_and_writes_nothing(run, tmp_path):
    file, cluster = tmp_path / "again.yaml", tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump({"name": "again", "inference": {"beams": [2]}}))
    cluster.write_text("version: 1\nmodule: dask.distributed\nclass: LocalCluster\n")
    options = ["--config", file, "--models-from", run, "--cluster", cluster, "--dry-run"]
    result = CliRunner().invoke(
        cli.main, ["sweep", *map(str, options), "--runs", str(tmp_path / "runs")]
    )
    assert result.exit_code == 0, result.output
    done = next(line for line in result.stdout.splitlines() if line.startswith("done"))
    assert "train 4 of 4 models, export 4 of 4 models" in done
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"models_from": "/nowhere"}, "no spec.json that can be read"),
        ({"training": {"examples": 5}, "seed": 1}, "has seed, training beside models_from"),
        ({"name": "toy"}, "no name of its own"),
        ({"inference": {"beam": 3}}, "unknown key inference.beam; did you mean beams"),
    ],
)
def test_what_cannot_be_taken_is_refused(run, tmp_path, content, message):
    with pytest.raises(SpecError, match=message):
        spec_of(tmp_path, **{"run": run, **content}) if "models_from" not in content else spec_of(
            tmp_path, content["models_from"]
        )


def test_a_run_that_is_not_finished_is_refused(toy, run, tmp_path):
    copy_models(toy, tmp_path / "their")
    theirs = tmp_path / "their" / "toy"
    shutil.rmtree(theirs / "checkpoints" / "codes" / "llama")
    with pytest.raises(InputError, match="has no checkpoint at .*codes/llama"):
        Study(spec_of(tmp_path, theirs), runs=tmp_path / "runs").search()
    assert not (tmp_path / "runs" / "again" / "spec.json").exists()
