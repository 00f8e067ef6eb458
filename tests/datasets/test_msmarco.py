"""MS MARCO's files, against what plain loops read of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from genret_dask.datasets import MsmarcoDataset
from genret_dask.datasets.collection import SPLITS
from genret_dask.errors import DatasetError

FILES = {
    "collection.tsv": '0\tThe "Manhattan Project" was\n1\ta\u00a0second passage\n12\tthe third\n',
    "queries.train.tsv": "100\twhat was it\n101\twho asks\n",
    "qrels.train.tsv": "100\t0\t0\t1\n100\t0\t12\t1\n",
    "queries.dev.small.tsv": "200\tis it\n201\twhich, then\n",
    "qrels.dev.small.tsv": "200\t0\t1\t1\n201\t0\t12\t1\n",
}


def make(folder: Path, files: dict[str, str | None] | None = None, **fields) -> MsmarcoDataset:
    """The usual files, with some replaced, added or (None) left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**FILES, **(files or {})}.items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return MsmarcoDataset.model_validate({"path": folder, **fields})


def judged(collection) -> dict[str, set[tuple[str, str, int]]]:
    return {
        split: {
            (collection.query_ids[q], collection.document_ids[d], int(r))
            for q, d, r in zip(qrels.query, qrels.document, qrels.relevance, strict=True)
        }
        for split, qrels in collection.qrels.items()
    }


def test_the_usual_files(tmp_path):
    dataset = make(tmp_path / "marco")
    collection = dataset.load()
    rows = [line.split("\t") for line in FILES["collection.tsv"].splitlines()]
    assert collection.name == "marco" and dataset.main_metric == "mrr@10"
    assert [*zip(collection.document_ids, collection.texts, strict=True)] == [*map(tuple, rows)]
    assert set(collection.titles) == {""}
    assert list(collection.query_ids) == ["100", "101", "200", "201"]
    assert judged(collection) == {
        "train": {("100", "0", 1), ("100", "12", 1)},
        "dev": set(),
        "test": {("200", "1", 1), ("201", "12", 1)},
    }


def test_gz_files_and_trec_between_blanks_hold_the_same(tmp_path):
    plain = make(tmp_path / "plain")
    for name, text in FILES.items():
        text = text.replace("\t", " ") if name.startswith("qrels") else text
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    packed = MsmarcoDataset(path=tmp_path)
    assert packed.load().content_hash == plain.load().content_hash


def test_splits_are_named_and_may_share_their_queries(tmp_path):
    files = {
        "asked.tsv": FILES["queries.dev.small.tsv"],
        "qrels.txt": "qid pid rel\n200 1 2\n",
        "queries.train.tsv": None,
        "qrels.train.tsv": None,
    }
    fields = {
        "dev": ["asked.tsv", tmp_path / "qrels.txt"],
        "test": ["asked.tsv", "qrels.dev.small.tsv"],
    }
    collection = make(tmp_path, files, **fields).load()
    assert list(collection.query_ids) == ["200", "201"]
    assert judged(collection)["dev"] == {("200", "1", 2)}
    assert len(collection.qrels["test"]) == 2 and not len(collection.qrels["train"])
    dataset = MsmarcoDataset(path=tmp_path, **fields)
    again = MsmarcoDataset.model_validate(dataset.model_dump(mode="json"))
    assert again.load().content_hash == collection.content_hash


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        ({"collection.tsv": "0\ta\tb\n"}, {}, r"collection\.tsv, line 1: 3 columns"),
        ({"collection.tsv": "0\ta\n\n\tb\n"}, {}, r"collection\.tsv, line 3: no id"),
        ({"collection.tsv": "0\ta\n1\tb\n0\tc\n"}, {}, "line 3: document id '0' again, .* line 1"),
        ({"collection.tsv": ""}, {}, r"collection\.tsv is empty"),
        ({"collection.tsv": None}, {}, r"collection\.tsv: No such file"),
        ({"queries.train.tsv": "only\n"}, {}, r"queries\.train\.tsv, line 1: 1 columns"),
        ({"queries.train.tsv": None}, {}, r"queries\.train\.tsv: No such file"),
        ({"queries.train.tsv": "200\tx\n100\ty\n"}, {}, "small.tsv, line 1: query id '200' again"),
        ({"qrels.dev.small.tsv": None}, {}, r"qrels\.dev\.small\.tsv: No such file"),
        ({"qrels.train.tsv": "100\t0\t1\n"}, {}, None),
        ({"qrels.train.tsv": "100 0 0 1\n100 0 7 1\n"}, {}, r"'7'; .*train\.tsv, line 2"),
        ({"qrels.dev.small.tsv": "9 0 0 1\n"}, {}, r"query '9'; .*dev\.small\.tsv, line 1"),
        ({"qrels.dev.small.tsv": "200 0 0 1.5\n"}, {}, r"small\.tsv, line 1: score '1\.5'"),
        ({}, {"train": ["asked.tsv", "judged.tsv"]}, r"asked\.tsv: No such file"),
        ({}, {"dev": ["queries.dev.tsv", "qrels.dev.tsv"]}, r"queries\.dev\.tsv: No such file"),
    ],
)
def test_bad_folders_say_where(tmp_path, files, fields, message):
    dataset = make(tmp_path, files, **fields)
    if message is None:
        assert judged(dataset.load())["train"] == {("100", "0", 1)}
        return
    with pytest.raises(DatasetError, match=message) as caught:
        dataset.load()
    assert caught.value.exit_code == 2


def test_unknown_ids_may_be_dropped(tmp_path):
    dataset = make(tmp_path, {"qrels.train.tsv": "100 0 7 1\n100 0 0 1\n"}, allow_unknown_ids=True)
    assert judged(dataset.load())["train"] == {("100", "0", 1)}


def test_the_fingerprint_follows_bytes_and_roles_not_names(tmp_path):
    first = make(tmp_path / "a")
    assert first.fingerprint() == make(tmp_path / "b").fingerprint()
    renamed = {"p.tsv": FILES["collection.tsv"], "collection.tsv": None}
    assert make(tmp_path / "c", renamed, collection="p.tsv").fingerprint() == first.fingerprint()
    more = {"collection.tsv": FILES["collection.tsv"] + "9\tmore\n"}
    assert make(tmp_path / "d", more).fingerprint() != first.fingerprint()
    dev = first.model_copy(update={"dev": first.test})
    assert dev.fingerprint() != first.fingerprint()
    assert set(judged(dev.load())) == {*SPLITS}
