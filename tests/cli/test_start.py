"""What a new user begins with: init, models and the schema that editors check a file by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from genret_dask import cli
from genret_dask.cli.init import _dataset
from genret_dask.clusters.spec import load_cluster_spec
from genret_dask.models.configs import config_of
from genret_dask.models.families import family_of
from genret_dask.models.sizes import preset_sizes
from genret_dask.specs import ModelSpec, SweepSpec, load_spec
from genret_dask.specs.written import written

ROOT = Path(__file__).parents[2]


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(invoke("schema").stdout)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


# --- init ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["study.yaml", "-"])
def test_the_yaml_of_init_is_the_default_study(tmp_path, monkeypatch, validator, place):
    monkeypatch.chdir(tmp_path)
    result = invoke("init", "--output", place)
    assert result.exit_code == 0
    text = result.stdout if place == "-" else Path(place).read_text(encoding="utf-8")
    (tmp_path / "read.yaml").write_text(text, encoding="utf-8")
    assert load_spec("read.yaml") == SweepSpec()
    assert not list(validator.iter_errors(yaml.safe_load(text)))


def test_every_key_of_every_section_stands_there_with_its_default():
    content = yaml.safe_load(written(SweepSpec()))
    default = SweepSpec().model_dump(mode="json")
    assert {**content, "models": None} == {**default, "models": None}


def test_a_folder_is_the_collection_and_names_the_run(toy, tmp_path):
    file, beir = tmp_path / "study.yaml", toy / "beir"
    result = invoke("init", "--dataset", "beir", beir, "allow_unknown_ids=true", "--output", file)
    assert result.exit_code == 0 and "--dry-run" in result.stdout
    spec = load_spec(file)
    assert (spec.name, spec.dataset.path, spec.dataset.allow_unknown_ids) == ("beir", beir, True)


def test_what_is_there_stays_there(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("mine")
    result = invoke("init", "--output", file)
    assert result.exit_code == 2 and "is there" in result.stderr and file.read_text() == "mine"
    assert invoke("init", "--output", file, "--force").exit_code == 0
    assert file.read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "bier", "x"], "did you mean beir"),
        (["--dataset", "beir"], "a beir dataset needs path"),
        (["--dataset", "beir", "/nowhere"], "/nowhere is missing"),
        (["--dataset", "dpr", "a", "b"], "'b' is no key of a dpr dataset"),
        (["documents=many"], "documents: Input should be a valid integer"),
        (["--output", "/nowhere/x.yaml"], "cannot be written"),
    ],
)
def test_what_cannot_be_written_down_is_refused(arguments, message):
    result = invoke("init", *arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert "Traceback" not in result.output


def test_an_id_of_ir_datasets_is_its_test_split():
    assert _dataset("ir_datasets", ("vaswani",)).test == "vaswani"


# --- schema -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", sorted((ROOT / "docs").glob("*.yaml")), ids=lambda file: file.name)
def test_the_schema_takes_the_studies_of_the_documentation(validator, file):
    assert not list(validator.iter_errors(yaml.safe_load(file.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"identifiers": "titles"},
        {"identifiers": ["codes", {"kind": "ngrams", "max_tokens": 5}]},
        {"identifiers": {"levels": 2}},
        {"models": [{"name": "mine", "checkpoint": "models/mine", "identifiers": "titles"}]},
        {"models": [{"name": "all", "checkpoints": "runs/*/step-*"}]},
        {"models": [{"family": "t5", "size": "micro", "training": {"examples": 5}}]},
    ],
)
def test_the_schema_takes_the_short_forms(validator, content):
    assert not list(validator.iter_errors(content))


@pytest.mark.parametrize(
    "content",
    [
        {"trainig": {}},
        {"inference": {"beam": [1]}},
        {"inference": {"beams": 10}},
        {"dataset": {"path": "x"}},
        {"dataset": {"kind": "beir"}},
        {"identifiers": {"kind": "codes", "level": 2}},
        {"models": [{"family": "t5", "size": "micro", "training": {"example": 5}}]},
        {"seed": -1},
    ],
)
def test_the_schema_refuses_what_the_study_would(validator, content):
    assert list(validator.iter_errors(content))


def test_the_schema_of_clusters_takes_those_that_are_there():
    validator = Draft202012Validator(json.loads(invoke("schema", "cluster").stdout))
    for file in (ROOT / "cluster_specs").glob("*.yaml"):
        load_cluster_spec(file)
        assert not list(validator.iter_errors(yaml.safe_load(file.read_text(encoding="utf-8"))))


# --- models -------------------------------------------------------------------------------------


def test_the_sizes_are_those_of_built_models():
    found = {one["size"]: one for one in json.loads(invoke("models", "t5", "--json").stdout)}
    assert found["micro"]["n_params"] == 788_224  # as the report of the default study has it
    config = config_of(ModelSpec(family="t5", size="nano"), vocab_size=4096)
    model = family_of("t5").load_model_class()(config)
    assert found["nano"]["parameters"] == sum(one.numel() for one in model.parameters())
    assert found["nano"]["bytes"] == 4 * found["nano"]["parameters"]
    assert found["nano"]["layers"] == "2 + 2"


def test_every_family_has_its_presets_and_one_alone_can_be_asked_for():
    families = {one["family"] for one in preset_sizes(4096)}
    assert {"t5", "llama", "qwen3", "bart"} <= families
    result = invoke("models", "llama")
    assert "639,872" in result.stdout and "t5" not in result.stdout
    assert "cannot be trained" in invoke("models", "t6").stderr


def test_lists_of_paths_are_written_down(tmp_path):
    folder, file = tmp_path / "marco", tmp_path / "study.yaml"
    folder.mkdir()
    (folder / "collection.tsv").write_text("1\tone two\n")
    (folder / "queries.dev.small.tsv").write_text("7\tone\n")
    (folder / "qrels.dev.small.tsv").write_text("7\t0\t1\t1\n")
    arguments = ["--dataset", "msmarco", folder, "--output", file]
    assert invoke("init", *arguments).exit_code == 0
    assert load_spec(file).dataset.path == folder
