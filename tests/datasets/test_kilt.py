"""KILT files, against what plain loops read of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genret_dask.datasets import KiltDataset
from genret_dask.errors import DatasetError
from tests.strategies import JSON

PAGES = [
    {"_id": "290", "wikipedia_id": "290", "wikipedia_title": "A", "text": ["A\n", "first\n"]},
    {"wikipedia_id": 12, "wikipedia_title": "Anarchism", "text": "one string"},
    {"_id": "x", "title": "X", "contents": "others' names"},
]
TEST = [
    {
        "id": "q1",
        "input": "which letter",
        "output": [
            {"answer": "A", "provenance": [{"wikipedia_id": "290"}, {"wikipedia_id": "290"}]},
            {"answer": "the a", "meta": {}},
            {"answer": "A", "provenance": [{"wikipedia_id": 12}]},
            {"provenance": [{"wikipedia_id": "x"}]},
        ],
    },
    {"id": 7, "input": "unanswered", "output": []},
]
TRAIN = [{"id": "t1", "input": "what", "output": [{"provenance": [{"wikipedia_id": "12"}]}]}]


def lines(records: list) -> str:
    return "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records)


def make(folder: Path, pages=PAGES, test=TEST, train=TRAIN, **fields) -> KiltDataset:
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in {"pages": pages, "test": test, "train": train}.items():
        (folder / f"{name}.jsonl").write_text(lines(records), encoding="utf-8")
    paths = {name: folder / f"{name}.jsonl" for name in ("pages", "train", "test")}
    return KiltDataset.model_validate({**paths, **fields})


def judged(collection, split: str) -> list[tuple[str, str]]:
    qrels = collection.qrels[split]
    return [
        (collection.query_ids[q], collection.document_ids[d])
        for q, d in zip(qrels.query, qrels.document, strict=True)
    ]


def test_pages_questions_answers_and_provenance(tmp_path):
    collection = make(tmp_path).load()
    assert collection.name == "pages"
    assert list(collection.document_ids) == ["290", "12", "x"]
    assert list(collection.titles) == ["A", "Anarchism", "X"]
    assert list(collection.texts) == ["A\nfirst", "one string", "others' names"]
    assert list(collection.query_ids) == ["t1", "q1", "7"]
    assert collection.answers == {"q1": ("A", "the a")}
    assert judged(collection, "test") == [("q1", "290"), ("q1", "12"), ("q1", "x")]
    assert judged(collection, "train") == [("t1", "12")]


def test_pages_as_tsv_and_gz(tmp_path):
    plain = make(tmp_path)
    rows = 'id\ttext\ttitle\n290\t"A\nfirst"\tA\n'.replace("A\nfirst", "A first")
    path = tmp_path / "psgs.tsv.gz"
    path.write_bytes(gzip.compress((rows + "12\tone string\tAnarchism\nx\ty\tX\n").encode()))
    collection = plain.model_copy(update={"pages": path}).load()
    assert list(collection.document_ids) == ["290", "12", "x"]
    assert list(collection.texts)[:2] == ["A first", "one string"]
    assert judged(collection, "test") == judged(plain.load(), "test")


def of(**output) -> list:
    return [*TEST, {"id": "q9", "input": "?", "output": [output]}]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pages": [*PAGES, {"text": "x"}]}, r"pages\.jsonl, line 4: no wikipedia_id \(nor _id,"),
        ({"pages": [*PAGES, {"id": "y", "body": ""}]}, "line 4: no text .*; its fields: id, body"),
        ({"pages": [*PAGES, {"id": "y", "text": [1]}]}, "line 4: text is not a list of strings"),
        ({"pages": [*PAGES, PAGES[0]]}, "line 4: document id '290' again, first at .* line 1"),
        ({"pages": []}, "has no pages"),
        ({"test": []}, "has no questions"),
        ({"test": ["{"]}, r"test\.jsonl, line 1: not JSON"),
        ({"test": [*TEST, {"id": "q9"}]}, "line 3: no input; its fields: id"),
        ({"test": [{"id": "q9", "input": "?", "output": "A"}]}, "line 1: output is not a list"),
        ({"test": of(answer=3)}, "line 3: an answer is not a string"),
        ({"test": of(answer="\ud800")}, "line 3: an answer is not a string"),
        ({"test": of(provenance=["290"])}, "line 3: provenance is not a list of objects"),
        ({"test": of(provenance=[{"title": "A"}])}, "line 3: no wikipedia_id; its fields: title"),
        ({"test": of(provenance=[{"wikipedia_id": "gone"}])}, r"'gone'; .*test\.jsonl, line 3"),
        (
            {"test": [*TEST, TRAIN[0]]},
            "line 3: query id 't1' again, first at .*train.jsonl, line 1",
        ),
    ],
)
def test_bad_files_say_where(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message) as caught:
        make(tmp_path, **files).load()
    assert caught.value.exit_code == 2


def test_provenance_of_unknown_pages_may_be_dropped(tmp_path):
    test = of(provenance=[{"wikipedia_id": "gone"}])
    collection = make(tmp_path, test=test, allow_unknown_ids=True).load()
    assert len(judged(collection, "test")) == 3


def test_the_fingerprint_follows_bytes_and_roles_not_names(tmp_path):
    first = make(tmp_path / "a")
    assert first.fingerprint() == make(tmp_path / "b").fingerprint()
    assert first.fingerprint() != make(tmp_path / "c", test=TEST[:1]).fingerprint()
    swapped = first.model_copy(update={"dev": first.train, "train": None})
    assert first.fingerprint() != swapped.fingerprint()


RECORDS = st.fixed_dictionaries(
    {},
    optional={name: JSON for name in ("id", "input", "output", "wikipedia_id", "text", "title")},
)
OUTPUTS = st.fixed_dictionaries({}, optional={"answer": JSON, "provenance": JSON})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["pages", "test"]),
    record=RECORDS | st.lists(OUTPUTS, max_size=2).map(lambda found: {**TEST[1], "output": found}),
)
def test_no_record_brings_anything_but_a_dataset_error(tmp_path, name, record):
    good = {"pages": PAGES, "test": TEST}[name]
    try:
        collection = make(tmp_path, **{name: [*good, record]}).load()
    except DatasetError as error:
        assert str(tmp_path) in str(error) or "judgements name" in str(error)
    else:
        assert len(collection) >= len(PAGES)
