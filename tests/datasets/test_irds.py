"""The ir_datasets loader on small local datasets of the real library."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import NamedTuple

import ir_datasets
import pytest
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import TrecQrels, TsvDocs, TsvQueries
from ir_datasets.util import LocalDownload

from genret_dask.datasets import IrDatasetsDataset
from genret_dask.errors import DatasetError

NUMBERS = itertools.count()


class TitledDoc(NamedTuple):
    doc_id: str
    title: str
    text: str

    def default_text(self):
        return f"{self.title} {self.text}"


class BodyDoc(NamedTuple):
    doc_id: str
    body: str


class BrokenDownload:
    def path(self, force=True):
        return "nowhere"

    @contextmanager
    def stream(self):
        raise OSError("no route to host")
        yield


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """Register a dataset with docs, and with train and test below it; return its id."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    registry = ir_datasets.registry

    def register(
        docs="d1\tfirst text\nd2\tsecond text\n",
        train=("q1\tone?\n", "q1 0 d1 1\n"),
        test=("q2\ttwo?\n", "q2 0 d2 2\nq2 0 d1 0\n"),
        doc_cls=None,
        download=None,
    ):
        name = f"local{next(NUMBERS)}"
        base = tmp_path / name

        def local(file, text):
            base.mkdir(exist_ok=True)
            (base / file).write_text(text, encoding="utf-8")
            return LocalDownload(base / file)

        options = {"doc_cls": doc_cls} if doc_cls else {}
        handler = TsvDocs(download or local("docs.tsv", docs), **options)
        registry.register(name, Dataset(handler))
        for split, (queries, qrels) in {"train": train, "test": test}.items():
            registry.register(
                f"{name}/{split}",
                Dataset(
                    handler,
                    TsvQueries(local(f"{split}.queries.tsv", queries)),
                    TrecQrels(local(f"{split}.qrels", qrels), {1: "relevant"}),
                ),
            )
        return name

    yield register
    for name in [name for name in registry if name.startswith("local")]:
        del registry._registered[name]


def spec_of(name, **more):
    return IrDatasetsDataset(kind="ir_datasets", train=f"{name}/train", test=f"{name}/test", **more)


def test_documents_queries_and_judgements(catalogue):
    name = catalogue()
    collection = spec_of(name).load()
    assert collection.name == f"{name}/test"
    assert collection.version == f"ir-datasets-{ir_datasets.__version__}"
    assert collection.document_ids == ("d1", "d2")
    assert collection.texts == ("first text", "second text") and collection.titles == ("", "")
    assert collection.query_ids == ("q1", "q2") and collection.queries == ("one?", "two?")
    assert collection.qrels["train"].document.tolist() == [0]
    assert collection.qrels["test"].document.tolist() == [0, 1]
    assert collection.qrels["test"].relevance.tolist() == [0, 2]
    assert len(collection.qrels["dev"]) == 0


def test_titles_stay_apart_and_other_fields_join(catalogue):
    titled = spec_of(catalogue("d1\tT\ttext\nd2\t\tmore\n", doc_cls=TitledDoc)).load()
    assert titled.titles == ("T", "") and titled.texts == ("text", "more")
    body = spec_of(catalogue("d1\tone\nd2\ttwo\n", doc_cls=BodyDoc)).load()
    assert body.titles == ("", "") and body.texts == ("one", "two")


def test_one_query_in_two_splits(catalogue):
    same = spec_of(catalogue(train=("q2\ttwo?\n", "q2 0 d1 1\n"))).load()
    assert same.query_ids == ("q2",)
    with pytest.raises(DatasetError, match="query q2 with another text"):
        spec_of(catalogue(train=("q2\telse?\n", "q2 0 d1 1\n"))).load()


def test_splits_of_different_corpora_are_refused(catalogue):
    one, two = catalogue(), catalogue()
    spec = IrDatasetsDataset(kind="ir_datasets", dev=f"{one}/train", test=f"{two}/test")
    with pytest.raises(DatasetError, match="different documents"):
        spec.load()


def test_unknown_ids_of_the_catalogue_and_of_qrels(catalogue):
    with pytest.raises(DatasetError, match="no dataset 'vaswanii'") as caught:
        IrDatasetsDataset(kind="ir_datasets", test="vaswanii").load()
    assert "vaswani" in caught.value.expected
    name = catalogue(test=("q2\ttwo?\n", "q2 0 d2 1\nq2 0 d9 1\n"))
    with pytest.raises(DatasetError, match="'d9'"):
        spec_of(name).load()
    assert len(spec_of(name, allow_unknown_ids=True).load().qrels["test"]) == 1


def test_a_dataset_without_queries(catalogue):
    name = catalogue()
    with pytest.raises(DatasetError, match=f"{name} has no queries, qrels"):
        IrDatasetsDataset(kind="ir_datasets", test=name).load()


def test_a_failing_download_and_a_broken_record(catalogue):
    name = catalogue(download=BrokenDownload())
    with pytest.raises(DatasetError, match=f"could not deliver {name}/test: OSError: no route"):
        spec_of(name).load()
    with pytest.raises(DatasetError, match="expected 2 fields"):
        spec_of(catalogue(docs="d1\ttoo\tmany\n")).load()


def test_the_fingerprint_follows_the_ids():
    one = IrDatasetsDataset(kind="ir_datasets", test="vaswani")
    assert one.fingerprint() == one.model_copy().fingerprint()
    for change in ({"test": "cranfield"}, {"dev": "vaswani"}, {"allow_unknown_ids": True}):
        assert one.model_copy(update=change).fingerprint() != one.fingerprint()
