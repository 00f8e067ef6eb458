"""A collection written and read back."""

from __future__ import annotations

import errno
import json
import os

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from genret_dask.datasets import BeirDataset, Collection, Qrels, stored
from genret_dask.datasets.beir import write_folder
from genret_dask.errors import DatasetError, GenretError
from tests.strategies import collections


@pytest.fixture
def small() -> Collection:
    none = Qrels.from_rows([], [], [])
    return Collection(
        name="small",
        version="1",
        document_ids=("d0", "d1"),
        titles=("", "T"),
        texts=("a", "b"),
        query_ids=("q0",),
        queries=("x",),
        qrels={"train": none, "dev": none, "test": Qrels.from_rows([0], [1], [1])},
        answers={"q0": ("b",)},
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(collection=collections())
def test_what_is_written_is_read_back(tmp_path_factory, collection):
    folder = tmp_path_factory.mktemp("round") / "collection"
    stored.write(collection, folder)
    found = stored.read(folder)
    assert found.content_hash == collection.content_hash
    assert (found.name, found.version) == (collection.name, collection.version)
    assert found.document_ids == collection.document_ids and found.texts == collection.texts
    assert found.answers == {name: one for name, one in collection.answers.items() if one}


def test_equal_collections_give_equal_bytes_and_a_beir_folder(small, tmp_path):
    for name in ("a", "b"):
        stored.write(small, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert "collection.json" in map(str, files) and len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_beir_folder_holds_the_same(small, tmp_path):
    write_folder(small, tmp_path / "beir")
    reloaded = BeirDataset(kind="beir", path=tmp_path / "beir").load()
    assert reloaded.content_hash == small.content_hash


def test_pandas_opens_the_documents(small, tmp_path):
    stored.write(small, tmp_path / "c")
    table = pd.read_feather(tmp_path / "c" / "documents.arrow")
    assert table["id"].tolist() == ["d0", "d1"] and table["text"].tolist() == ["a", "b"]


@pytest.mark.parametrize("name", ["documents.arrow", "queries.arrow", "qrels.arrow", "ids.arrow"])
def test_a_damaged_table_is_refused(small, tmp_path, name):
    stored.write(small, tmp_path / "c")
    path = tmp_path / "c" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=f"{name} cannot be read"):
        stored.read(tmp_path / "c")
    path.unlink()
    if name == "ids.arrow":  # older collections have none
        assert stored.read(tmp_path / "c").document_ids.find(["d1"]).tolist() == [1]
        return
    with pytest.raises(DatasetError, match=f"{name} cannot be read"):
        stored.read(tmp_path / "c")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "a"}', "\xff", "[" * 100_000])
def test_a_damaged_manifest(small, tmp_path, text):
    stored.write(small, tmp_path / "c")
    (tmp_path / "c" / "collection.json").write_text(text, encoding="latin-1")
    with pytest.raises(DatasetError, match=r"collection\.json is damaged"):
        stored.read(tmp_path / "c")


def test_a_missing_manifest(small, tmp_path):
    with pytest.raises(DatasetError, match=r"collection\.json is missing"):
        stored.read(tmp_path / "c")
    stored.write(small, tmp_path / "c")
    manifest = json.loads((tmp_path / "c" / "collection.json").read_text())
    assert manifest["documents"] == 2 and manifest["content_hash"] == small.content_hash


def test_a_full_disk_is_told_plainly(small, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.ipc.RecordBatchFileWriter.write_batch", full)
    with pytest.raises(GenretError, match="cannot write to .*No space left"):
        stored.write(small, tmp_path / "c")
