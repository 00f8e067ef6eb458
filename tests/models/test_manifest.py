"""The manifest refuses folders that are not what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from genret_dask.errors import ModelError
from genret_dask.exporters import export_model
from genret_dask.inference.session import open_session
from genret_dask.models.manifest import read_manifest
from genret_dask.storage.fingerprint import sha256_file
from genret_dask.storage.records import dump_record, parse_record


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("manifest")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(root / "hf")
    export_model("llama", root / "hf", root / "onnx", start_token=1)
    return root / "onnx"


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def edit(folder: Path, change) -> None:
    path = folder / "manifest.json"
    content = parse_record(path.read_bytes(), path)
    change(content)
    path.write_bytes(dump_record(content))


def test_it_is_frozen_and_reads_back(folder):
    manifest = read_manifest(folder)
    graphs = {"prefill.onnx", "step.onnx", "head.onnx", "select.onnx"}
    assert set(manifest.files) == {*graphs, "weights.bin"}
    with pytest.raises(ValidationError):
        manifest.family = "t5"


@pytest.mark.parametrize("name", ["prefill.onnx", "step.onnx", "weights.bin"])
def test_a_flipped_byte_is_named(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} has sha256"):
        read_manifest(folder)
    with pytest.raises(ModelError, match=rf"{name} has sha256"):
        open_session(folder)
    assert read_manifest(folder, verify=False).family == "llama"


def test_a_flipped_byte_of_the_manifest_itself_is_named(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"start_token": 1', '"start_token": 2'))
    with pytest.raises(ModelError, match="manifest.json is not what its own hash says"):
        open_session(folder)


def test_a_missing_file_is_named(folder):
    (folder / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin cannot be read \(No such file"):
        read_manifest(folder)


def test_no_manifest(tmp_path):
    with pytest.raises(ModelError, match=r"manifest\.json: No such file"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=1), "format"),
        (lambda c: c.update(extra=1), "extra"),
        (lambda c: c.pop("parity"), "parity"),
        (lambda c: c["files"].update({"../outside": "0"}), "outside"),
        (lambda c: c["files"].update({"/etc/hostname": "0"}), "hostname"),
    ],
)
def test_a_malformed_manifest_is_refused(folder, change, message):
    edit(folder, change)
    with pytest.raises(ModelError, match=message):
        read_manifest(folder)


@pytest.mark.parametrize("place", ["../weights.bin", "unlisted.bin"])
def test_weights_outside_the_listed_files_are_refused(folder, place):
    path = folder / "step.onnx"
    (folder / place).write_bytes((folder / "weights.bin").read_bytes())
    model = onnx.load(path, load_external_data=False)
    stored = [t for t in model.graph.initializer if t.external_data]
    for entry in stored[0].external_data:
        if entry.key == "location":
            entry.value = place
    path.write_bytes(model.SerializeToString())
    edit(folder, lambda c: c["files"].update({"step.onnx": sha256_file(path)}))
    with pytest.raises(ModelError, match="reads its weights from"):
        read_manifest(folder)
