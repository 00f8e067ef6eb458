"""What is shown of a hostile collection, and what never is: markup, terminal sequences, secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.clusters import load_cluster_spec
from genret_dask.errors import GenretError, SpecError
from genret_dask.redaction import MASK, printable, redact
from genret_dask.report import write_report
from genret_dask.specs import SweepSpec, load_spec
from tests.conftest import make_collection, write_beir
from tests.fits import conftest as laws
from tests.report.conftest import Page, rewrite
from tests.runs import TINY

ESCAPES = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202eback"
MARKUP = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIhunter2key",
    "HF_TOKEN": "hf_hunter2hunter2hunter2",
    "STORE_PASSWORD": "correct-hunter2-staple",
}


# --- the page ---------------------------------------------------------------------------------


def test_markup_in_queries_and_model_names_is_text(tmp_path, monkeypatch):
    monkeypatch.setattr(laws, "MODELS", laws.MODELS[:2])
    run = tmp_path / "run"
    laws.write_law_cube(run / "cube.zarr", queries=8, shard=8)
    for dataset in ("search", "contrast"):
        for name in ("text", "model", "family"):
            rewrite(run, "codes", dataset, name, lambda old: old + MARKUP)
    path = write_report(run, draws=10)
    page = Page(path.read_text("utf-8"))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "foreignObject"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert "javascript:" not in (value or "")
    assert any(MARKUP in text for text in page.text), "the texts are on the page"
    figures = list(path.parent.glob("*.svg"))
    assert figures
    for figure in figures:
        for element in ElementTree.parse(figure).iter():
            assert element.tag.rpartition("}")[2] not in ("script", "img", "foreignObject")
            assert not any(name.startswith("on") for name in element.attrib)


# --- a run with secrets all around -------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> tuple[Path, str]:
    """A toy run of documents with terminal sequences; and all that the commands printed."""
    root = tmp_path_factory.mktemp("secrets")
    collection = make_collection(24)
    titles = tuple(f"title {row} {ESCAPES}" for row in range(24))
    write_beir(replace(collection, titles=titles), root / "beir")
    spec = {
        "name": "toy",
        "dataset": {"kind": "beir", "path": str(root / "beir")},
        "identifiers": {"levels": 2, "codes": 4},
        "tokenizer": {"vocab_size": 400},
        "training": {"examples": 64, "batch_size": 16, "evaluations": 1},
        "models": [{"family": "t5", "config": TINY["t5"], "name": "a"}],
        "inference": {"beams": [1, 3], "negatives": 4, "shard_queries": 8},
        "fits": {"bootstrap": 10},
    }
    cluster = {
        "module": "dask.distributed",
        "class": "LocalCluster",
        "kwargs": {"processes": False, "n_workers": 1, "dashboard_address": None},
        "environment": {"STORE_PASSWORD": SECRETS["STORE_PASSWORD"]},
    }
    (root / "spec.yaml").write_text(yaml.safe_dump(spec))
    (root / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    files = ["--cluster", "cluster.yaml", "--config", "spec.yaml"]
    code = "from genret_dask.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "-vv", "sweep", *files],
        cwd=root,
        capture_output=True,
        text=True,
        env={**os.environ, **SECRETS},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root, done.stdout + done.stderr


def test_no_secret_is_in_the_run_directory_or_on_the_terminal(swept):
    root, printed = swept
    files = [path for path in (root / "runs").rglob("*") if path.is_file()]
    assert len(files) > 30
    for name, secret in SECRETS.items():
        assert secret not in printed, name
        holders = [str(path) for path in files if secret.encode() in path.read_bytes()]
        assert not holders, name
    # The search would find a secret that is there.
    assert any(b'"name": "toy"' in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    "command",
    [
        ["explain", "runs/toy", "--query", "w1 w2", "--model", "a"],
        ["explain", "runs/toy", "--query", "\x9b31m", "--model", "a", "--json"],
        ["datasets", "show", "beir"],
        ["datasets", "validate", "beir"],
        ["metrics", "runs/toy"],
    ],
)
def test_titles_do_not_steer_the_terminal(swept, monkeypatch, command):
    root, _ = swept
    monkeypatch.chdir(root)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert result.output == printable(result.output)
    if command[-1] == "--json":
        assert json.loads(result.output)["query"] == "\x9b31m"
    elif command[0] == "explain":
        assert "]0;owned" in result.output, "the title is shown, without what steers"


def test_a_model_is_one_of_the_runs(swept, monkeypatch):
    root, _ = swept
    monkeypatch.chdir(root)
    for name in ("../codes/a", "..", ".", "/etc", "b", ""):
        result = CliRunner().invoke(main, ["explain", "runs/toy", "--query", "x", "--model", name])
        assert result.exit_code == 2 and "one of a" in result.output, result.output


# --- errors that quote input ------------------------------------------------------------------

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "environment: {HF_TOKEN: [hunter2hunter2]}",
        "environment: {HF_TOKEN: {value: hunter2hunter2}}",
        "scale: 1\nadapt: {minimum: 1, maximum: 2}\nenvironment: {PASSWORD: hunter2hunter2}",
        "module: os\nclass: system\nkwargs: {connect_options: {password: hunter2hunter2}}",
        "module: os\nclass: system\nkwargs: {env: [{name: A_TOKEN, value: hunter2hunter2}]}",
        "module: os\nclass: system\nkwargs: {prologue: ['export A_KEY=hunter2hunter2']}",
        "address: tcp://user:hunter2hunter2@host:8786",
        "address: tcp://user:hunter2hunter2@host",
        "environment:\n  PASSWORD: 'hunter2hunter2\n",
        "environment:\n  PASSWORD: hunter2hunter2: x\n",
        "environment: {PASSWORD: hunter2hunter2, PASSWORD: hunter2hunter2}",
        "environment: {PASSWORD: hunter2hunter2",
    ],
)
def test_an_error_of_a_cluster_file_quotes_no_secret(tmp_path, text):
    path = tmp_path / "cluster.yaml"
    path.write_text(text if "module" in text or "address" in text else f"module: dask_cuda\n{text}")
    with pytest.raises(SpecError) as caught:
        load_cluster_spec(path)
    assert SECRET not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"dataset": {"kind": "beir", "path": "s3://key:hunter2hunter2@bucket/x"}},
        {"dataset": {"kind": "beir", "path": "https://hunter2hunter2@host/x"}},
        {"dataset": {"kind": "ir_datasets", "test": "http://u:hunter2hunter2@h"}},
        {
            "models": [
                {
                    "family": "t5",
                    "name": "x",
                    "pretrained": {"hub": "https://u:hunter2hunter2@h/m", "revision": "abc"},
                }
            ]
        },
    ],
)
def test_a_spec_takes_no_password_in_a_url(tmp_path, fields):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(fields))
    with pytest.raises(SpecError, match="credentials") as caught:
        load_spec(path)
    assert SECRET not in str(caught.value)
    result = CliRunner().invoke(main, ["datasets", "validate", str(path)])
    assert result.exit_code == 2 and SECRET not in result.output


@pytest.mark.parametrize("name", ["..", ".", ".x", "../x", "a/b", "a\\b", "", "x" * 200, "a\n"])
def test_a_name_is_one_folder(name):
    for change in (
        {"name": name},
        {"models": [{"family": "t5", "config": {}, "name": name}]},
        {"models": [{"family": "t5", "size": name}]},
        {"models": [{"family": name, "size": "nano"}]},
    ):
        with pytest.raises(ValueError, match=r"name|size|family"):
            SweepSpec.model_validate(change)


def test_an_error_from_elsewhere_is_redacted_on_its_way_out(monkeypatch, tmp_path):
    error = GenretError(f"cannot reach s3://k:{SECRET}@b\x1b[2J")

    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("genret_dask.datasets.PydocDataset.load", fail)
    result = CliRunner().invoke(main, ["-vv", "datasets", "validate", "pydoc"])
    assert result.exit_code == 1
    assert SECRET not in result.output
    assert "\x1b[2J" not in result.output and MASK in result.output


def test_credentials_are_those_of_urls():
    assert redact("tls://host:1 and s3://bucket/a@b") == "tls://host:1 and s3://bucket/a@b"
    assert redact("tls://u:p@host:1, s3://k@b/a@b") == f"tls://{MASK}@host:1, s3://{MASK}@b/a@b"
