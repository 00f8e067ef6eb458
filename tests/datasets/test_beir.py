"""BEIR folders, good and bad."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genret_dask.datasets import BeirDataset, summary
from genret_dask.errors import DatasetError
from tests.strategies import JSON

CORPUS = '{"_id": "d1", "title": "One", "text": "first text"}\n{"_id": "d2", "text": "zweiter é"}\n'
QUERIES = '{"_id": "q1", "text": "first?"}\n{"_id": 7, "text": "second?"}\n'
TRAIN = "query-id\tcorpus-id\tscore\nq1\td1\t1\n"
TEST = "q1\td2\t2\n7\td1\t1.0\n7\td2\t0\n"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "squad-dev"


def make(folder: Path, files: dict[str, str | bytes | None] | None = None) -> BeirDataset:
    """A good folder, with some files replaced, added or (None) left out."""
    content: dict[str, str | bytes | None] = {
        "corpus.jsonl": CORPUS,
        "queries.jsonl": QUERIES,
        "qrels/train.tsv": TRAIN,
        "qrels/test.tsv": TEST,
    } | (files or {})
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        if data is not None:
            (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return BeirDataset(kind="beir", path=folder)


def test_a_plain_folder(tmp_path):
    collection = make(tmp_path / "toy").load()
    assert collection.name == "toy"
    assert collection.document_ids == ("d1", "d2")
    assert collection.titles == ("One", "")
    assert collection.texts == ("first text", "zweiter é")
    assert collection.query_ids == ("q1", "7")
    assert len(collection.qrels["train"]) == 1 and len(collection.qrels["dev"]) == 0
    test = collection.qrels["test"]
    assert list(zip(test.query, test.document, test.relevance, strict=True)) == [
        (0, 1, 2),
        (1, 0, 1),
        (1, 1, 0),
    ]


def test_a_broken_line_far_into_a_gz_file_is_named(tmp_path):
    """Many batches of rows were written before it."""
    lines = [json.dumps({"_id": f"d{row}", "text": "one two"}) for row in range(40_000)]
    lines[35_677] = lines[35_677][:-3]
    data = gzip.compress("\n".join(lines).encode(), compresslevel=1)
    folder = make(tmp_path, {"corpus.jsonl": None, "corpus.jsonl.gz": data})
    with pytest.raises(DatasetError, match=r"corpus\.jsonl\.gz, line 35678: not JSON"):
        folder.load()


def test_gz_files_hold_the_same(tmp_path):
    plain = make(tmp_path / "plain").load()
    packed = {
        f"{name}.gz": gzip.compress(text.encode())
        for name, text in {
            "corpus.jsonl": CORPUS,
            "queries.jsonl": QUERIES,
            "qrels/test.tsv": TEST,
            "qrels/train.tsv": TRAIN,
        }.items()
    }
    absent = dict.fromkeys(
        ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "qrels/train.tsv"], None
    )
    assert make(tmp_path / "packed", packed | absent).load().content_hash == plain.content_hash


def test_windows_line_ends_a_mark_and_blank_lines_change_nothing(tmp_path):
    plain = make(tmp_path / "plain").load()
    dressed = make(
        tmp_path / "dressed",
        {
            "corpus.jsonl": b"\xef\xbb\xbf" + CORPUS.replace("\n", "\r\n\r\n").encode(),
            "qrels/test.tsv": TEST.replace("\n", "\r\n"),
        },
    ).load()
    assert dressed.content_hash == plain.content_hash


def test_fields_by_other_names_hold_the_same(tmp_path):
    plain = make(tmp_path / "plain").load()
    for name in ("id", "docid", "doc_id"):
        for text in ("contents", "passage"):
            renamed = CORPUS.replace('"_id"', f'"{name}"').replace('"text"', f'"{text}"')
            found = make(tmp_path / name / text, {"corpus.jsonl": renamed}).load()
            assert found.content_hash == plain.content_hash
    for name in ("id", "qid", "query_id"):
        for text in ("query", "question", "contents"):
            renamed = QUERIES.replace('"_id"', f'"{name}"').replace('"text"', f'"{text}"')
            found = make(tmp_path / name / text, {"queries.jsonl": renamed}).load()
            assert found.content_hash == plain.content_hash
    both = CORPUS.replace('"_id": "d1"', '"_id": "d1", "id": "x", "contents": "y"')
    assert make(tmp_path / "both", {"corpus.jsonl": both}).load().content_hash == plain.content_hash


def test_qrels_as_trec_has_them(tmp_path):
    plain = make(tmp_path / "plain").load()
    trec = "TOPIC IT DOC REL\n" + "q1 0 d2 2\n7 0 d1 1\n7 0 d2 0\n"
    assert make(tmp_path / "trec", {"qrels/test.tsv": trec}).load().content_hash == (
        plain.content_hash
    )


def test_answers(tmp_path, caplog):
    lines = '{"_id": "q1", "answers": ["a", "b"]}\n{"_id": "gone", "answers": []}\n'
    with caplog.at_level(logging.WARNING, logger="genret_dask"):
        collection = make(tmp_path, {"answers.jsonl": lines}).load()
    assert collection.answers == {"q1": ("a", "b")}
    assert "1 answers are to unknown queries" in caplog.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"corpus.jsonl": CORPUS + "not json\n"}, r"corpus\.jsonl, line 3: not JSON"),
        ({"corpus.jsonl": CORPUS + "\n\n[1]\n"}, r"corpus\.jsonl, line 5: a JSON list"),
        ({"corpus.jsonl": CORPUS + '{"text": "x"}'}, r"corpus\.jsonl, line 3: no _id"),
        ({"corpus.jsonl": CORPUS + '{"_id": "d3"}'}, r"corpus\.jsonl, line 3: no text"),
        (
            {"corpus.jsonl": CORPUS + '{"pid": "d3", "body": ""}'},
            r"line 3: no _id \(nor id, docid, doc_id\); its fields: pid, body",
        ),
        ({"corpus.jsonl": CORPUS + '{"_id": "d3", "text": 5}'}, "line 3: text is a int"),
        ({"corpus.jsonl": CORPUS + '{"_id": "d1", "text": ""}'}, "'d1' again, first at .* line 1"),
        ({"corpus.jsonl": CORPUS + '{"_id": "a\\tb", "text": ""}'}, "line 3: _id is"),
        ({"corpus.jsonl": CORPUS + '{"_id": true, "text": ""}'}, "line 3: _id is True"),
        ({"corpus.jsonl": CORPUS + '{"_id": "d3", "text": "\\ud800"}'}, "half a character"),
        ({"corpus.jsonl": CORPUS.encode() + b'{"_id": "\xff"}'}, "line 3: not UTF-8"),
        ({"corpus.jsonl": "[" * 100_000}, "line 1: not JSON"),
        ({"corpus.jsonl": "\n"}, "has no documents"),
        ({"corpus.jsonl": None}, "has no corpus.jsonl"),
        ({"queries.jsonl": None}, "has no queries.jsonl"),
        ({"queries.jsonl": ""}, "has no queries"),
        ({"queries.jsonl": '{"_id": "q1"}'}, r"queries\.jsonl, line 1: no text"),
        ({"answers.jsonl": '{"_id": "q1", "answers": "a"}'}, r"answers\.jsonl, line 1"),
        ({"qrels/test.tsv": None, "qrels/train.tsv": None}, "has no qrels"),
        ({"qrels/test.tsv": TEST + "q1\td1\n"}, r"test\.tsv, line 4: 2 columns"),
        ({"qrels/test.tsv": TEST + "q1\td1\tyes\n"}, r"test\.tsv, line 4: score 'yes'"),
        ({"qrels/test.tsv": "q1\td1\t0.5\n"}, r"test\.tsv, line 1: score '0\.5'"),
        ({"qrels/test.tsv": "q1\td1\t9999999999\n"}, "line 1: score"),
        ({"qrels/test.tsv": TRAIN + "query-id\tcorpus-id\tscore\n"}, "line 3: score 'score'"),
    ],
)
def test_bad_folders_say_where(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message) as caught:
        make(tmp_path, files).load()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain"])
def test_a_damaged_gz_file(tmp_path, damage):
    lines = "".join(json.dumps({"_id": f"d{i}", "text": f"{i}" * 50}) + "\n" for i in range(2000))
    data = bytearray(gzip.compress(lines.encode()))
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data = bytearray(b"never compressed")
    folder = make(tmp_path, {"corpus.jsonl": None, "corpus.jsonl.gz": bytes(data)})
    with pytest.raises(DatasetError, match=r"corpus\.jsonl\.gz"):
        folder.load()


def test_a_missing_folder_and_a_file_for_a_folder(tmp_path):
    spec = BeirDataset(kind="beir", path=tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="nowhere is missing"):
        spec.load()
    with pytest.raises(DatasetError, match="nowhere is missing"):
        spec.fingerprint()
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="not a folder"):
        BeirDataset(kind="beir", path=tmp_path / "file").load()


def test_unknown_ids_are_counted_named_and_refused_unless_allowed(tmp_path, caplog):
    lines = "".join(f"q1\tghost{i}\t1\n" for i in range(9)) + "nobody\td1\t1\n"
    spec = make(tmp_path, {"qrels/test.tsv": TEST + lines})
    with pytest.raises(DatasetError) as caught:
        spec.load()
    message = str(caught.value)
    assert "10 judgements name 10 unknown ids" in message
    assert f"the first in {tmp_path}/qrels/test.tsv, line 4" in message
    assert "'ghost0'" in message and "'ghost8'" not in message
    assert "allow_unknown_ids" in message
    with caplog.at_level(logging.WARNING, logger="genret_dask"):
        collection = spec.model_copy(update={"allow_unknown_ids": True}).load()
    assert "10 judgements" in caplog.text
    assert len(collection.qrels["test"]) == 3


def test_the_fingerprint_follows_bytes_and_settings_not_the_path(tmp_path):
    first = make(tmp_path / "a")
    assert first.fingerprint() == make(tmp_path / "b").fingerprint()
    assert first.fingerprint() != first.model_copy(update={"allow_unknown_ids": True}).fingerprint()
    for name, text in [("corpus.jsonl", CORPUS + " "), ("qrels/dev.tsv", TRAIN)]:
        changed = make(tmp_path / name.replace("/", "-"), {name: text})
        assert changed.fingerprint() != first.fingerprint()


VALUES = JSON | st.sampled_from([float("nan"), float("inf"), "\ud800"])
LINES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.fixed_dictionaries(
        {}, optional={"_id": VALUES, "text": VALUES, "title": VALUES, "answers": VALUES}
    ).map(lambda record: json.dumps(record).encode()),
    st.lists(st.sampled_from(["q1", "d1", "1", "", "-3", "nan", "é"]), max_size=5).map(
        lambda cells: "\t".join(cells).encode()
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(["corpus.jsonl", "queries.jsonl", "answers.jsonl", "qrels/test.tsv"]),
    lines=st.lists(LINES, max_size=4),
)
def test_no_line_brings_anything_but_a_dataset_error(tmp_path_factory, name, lines):
    good = {"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels/test.tsv": TEST}
    data = good.get(name, "").encode() + b"\n".join(lines)
    spec = make(tmp_path_factory.mktemp("fuzz"), {name: data})
    try:
        collection = spec.load()
    except DatasetError as error:
        assert "fuzz" in str(error)
    else:
        assert summary(collection)["documents"] >= 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real collection is not here")
def test_a_real_collection():
    collection = BeirDataset(kind="beir", path=SHARED).load()
    facts = summary(collection)
    assert (facts["documents"], facts["queries"]) == (2067, 10570)
    assert sum(split["relevant"] for split in facts["splits"].values()) == 10570
    assert facts["queries_with_answers"] == 10570
    test = collection.qrels["test"]
    holds = [
        any(answer in collection.texts[d] for answer in collection.answers[collection.query_ids[q]])
        for q, d in zip(test.query, test.document, strict=True)
    ]
    assert sum(holds) > 0.99 * len(holds)
