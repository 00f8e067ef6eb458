"""The datasets command: what it prints and how it exits."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.cli.datasets import dataset_of, sample_pairs
from genret_dask.datasets import PydocDataset
from genret_dask.specs import SweepSpec
from genret_dask.specs.registry import entry, names_of
from genret_dask.specs.validation import validate


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(main, ["datasets", *map(str, arguments)])

    return invoke


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "toy"
    (root / "qrels").mkdir(parents=True)
    (root / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": f"text number {i}"}) + "\n" for i in range(9))
    )
    (root / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{i}", "text": f"what is {i}"}) + "\n" for i in range(9))
    )
    (root / "qrels" / "train.tsv").write_text("q0\td0\t1\n")
    (root / "qrels" / "test.tsv").write_text("".join(f"q{i}\td{i}\t1\n" for i in range(1, 8)))
    return root


def test_list_names_each_kind_with_yaml_that_is_valid(run):
    result = run("list")
    assert result.exit_code == 0
    for kind in names_of("datasets"):
        dataset = entry("datasets", kind)
        assert kind in result.output and dataset.needs in result.output
        spec = validate(SweepSpec, yaml.safe_load(dataset.example), source=kind)
        assert spec.dataset.kind == kind


def test_show_prints_pairs_of_the_test_split(run, folder):
    result = run("show", folder)
    assert result.exit_code == 0, result.output
    assert [line for line in result.output.splitlines() if " -> " in line] == [
        "q1 -> d1",
        "q4 -> d4",
        "q7 -> d7",
    ]
    assert "what is 4" in result.output and "text number 7" in result.output
    assert " -> " not in run("show", folder, "--samples", "0").output


def test_sample_pairs_of_a_collection_without_test_queries(folder):
    (folder / "qrels" / "test.tsv").write_text("")
    assert sample_pairs(dataset_of(str(folder)).load(), 3) == [(0, 0)]


def test_validate_a_folder_and_a_sweep(run, folder, tmp_path):
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump({"dataset": {"kind": "beir", "path": str(folder)}}))
    for source in (folder, config):
        result = run("validate", source)
        assert result.exit_code == 0, result.output
        assert "valid" in result.output
        assert "note: 1 queries have no relevant document" in result.output
        assert "note: 7 of 7 relevant documents of the test split" in result.output
        assert "the dev split is empty" in result.output


def test_validate_as_json(run, folder):
    result = run("validate", folder, "--json")
    facts = json.loads(result.stdout)
    assert facts["documents"] == 9 and facts["splits"]["test"]["queries"] == 7
    assert len(facts["remarks"]) == 3


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("corpus.jsonl", "oops\n", "corpus.jsonl, line 1"),
        ("qrels/test.tsv", "q1\tghost\t1\n", "'ghost'"),
        (
            "qrels/test.tsv",
            "q1\td1\t0\n",
            "the test split of toy has no query with a relevant document",
        ),
    ],
)
def test_validate_refuses(run, folder, file, text, message):
    (folder / file).write_text(text)
    result = run("validate", folder)
    assert result.exit_code == 2
    assert message in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("dpr", "needs more than its kind"),
        ("nowhere.yaml", "neither a file, nor a folder"),
    ],
)
def test_sources_that_name_nothing(run, source, message):
    result = run("show", source)
    assert result.exit_code == 2 and message in result.output


def test_a_config_with_an_unknown_key(run, tmp_path):
    (tmp_path / "sweep.yaml").write_text("dataset: {kind: pydoc, librarys: [dask]}\n")
    result = run("validate", tmp_path / "sweep.yaml")
    assert result.exit_code == 2 and "librarys" in result.output and "libraries" in result.output


def test_the_kind_that_needs_no_file():
    assert dataset_of("pydoc") == PydocDataset()
