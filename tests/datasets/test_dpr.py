"""DPR files, with a plain search as the judge of what holds an answer."""

from __future__ import annotations

import gzip
import logging
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.datasets import DprDataset
from genret_dask.datasets.dpr import Answers, tokenize
from genret_dask.errors import DatasetError

PASSAGES = (
    "id\ttext\ttitle\n"
    '1\t"He said ""Hello, World!"" in New York."\tGreeting\n'
    "2\tThe U.S. has New Yorkers and caf\u00e9s.\tNation\n"
    "3\tNothing to see here\tParis\n"
)
TEST = (
    "who greets\t['hello world', 'hello, world']\n"
    "where\t['new york']\n"
    "which nation\t['U.S.']\n"
    "which city\t['Paris']\n"
)
DEV = 'coffee\t["Cafe\u0301s"]\n'


def make(folder: Path, passages: str = PASSAGES, test: str = TEST, dev: str = DEV) -> DprDataset:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "psgs_w100.tsv").write_text(passages, encoding="utf-8")
    (folder / "nq-test.qa.csv").write_text(test, encoding="utf-8")
    (folder / "nq-dev.qa.csv").write_text(dev, encoding="utf-8")
    return DprDataset(
        kind="dpr",
        passages=folder / "psgs_w100.tsv",
        dev=folder / "nq-dev.qa.csv",
        test=folder / "nq-test.qa.csv",
    )


def judged(collection, split):
    qrels = collection.qrels[split]
    return {
        (collection.query_ids[q], collection.document_ids[d])
        for q, d in zip(qrels.query, qrels.document, strict=True)
    }


def test_passages_questions_and_answers(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="genret_dask"):
        collection = make(tmp_path).load()
    assert collection.name == "psgs_w100"
    assert collection.document_ids == ("1", "2", "3")
    assert collection.titles == ("Greeting", "Nation", "Paris")
    assert collection.texts[0] == 'He said "Hello, World!" in New York.'
    assert collection.query_ids == ("dev-0", "test-0", "test-1", "test-2", "test-3")
    assert collection.answers["test-0"] == ("hello world", "hello, world")
    # Tokens, not characters: New Yorkers hold no New York; titles don't count.
    assert judged(collection, "test") == {("test-0", "1"), ("test-1", "1"), ("test-2", "2")}
    assert judged(collection, "dev") == {("dev-0", "2")}
    assert judged(collection, "train") == set()
    assert "1 of 5 questions have no passage with an answer" in caplog.text


def test_gz_passages_without_a_header(tmp_path):
    spec = make(tmp_path)
    path = tmp_path / "psgs.tsv.gz"
    path.write_bytes(gzip.compress(PASSAGES.partition("\n")[2].encode()))
    packed = spec.model_copy(update={"passages": path}).load()
    assert packed.content_hash == spec.load().content_hash and packed.name == "psgs"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"passages": PASSAGES + "4\ttext\n"}, r"psgs_w100\.tsv, line 5: 2 columns"),
        ({"passages": PASSAGES + '4\t"open\ttitle\n5\tx\ty\n'}, "line 5: 2 columns"),
        ({"passages": PASSAGES + "2\tx\ty\n"}, "line 5: document id '2' again, first at .* line 3"),
        ({"passages": PASSAGES + "\tx\ty\n"}, "line 5: no id"),
        ({"passages": PASSAGES + "4\t" + "x" * 140_000 + "\ty\n"}, "line 5: field larger"),
        ({"passages": "id\ttext\ttitle\n"}, "has no passages"),
        ({"test": TEST + "what\t['a'\n"}, r"nq-test\.qa\.csv, line 5: answers are"),
        ({"test": TEST + "what\t__import__('os').getcwd()\n"}, "line 5: answers are"),
        ({"test": TEST + "what\t'Paris'\n"}, "line 5: answers are"),
        ({"test": TEST + "what\t[1]\n"}, "line 5: answers are"),
        ({"test": TEST + "what\t" + "[" * 5000 + "\n"}, "line 5: answers are"),
        ({"dev": "what\n"}, r"nq-dev\.qa\.csv, line 1: 1 columns"),
    ],
)
def test_bad_files_say_where(tmp_path, files, message):
    with pytest.raises(DatasetError, match=message):
        make(tmp_path, **files).load()


def test_a_missing_file(tmp_path):
    spec = make(tmp_path)
    spec.test.unlink()
    for method in ("load", "fingerprint"):
        with pytest.raises(DatasetError, match=r"nq-test\.qa\.csv: No such file"):
            getattr(spec, method)()


def test_the_fingerprint_follows_bytes_and_roles_not_paths(tmp_path):
    first = make(tmp_path / "a")
    assert first.fingerprint() == make(tmp_path / "b").fingerprint()
    assert first.fingerprint() != make(tmp_path / "c", dev=DEV + "x\t['y']\n").fingerprint()
    as_train = first.model_copy(update={"train": first.dev, "dev": None})
    assert first.fingerprint() != as_train.fingerprint()


WORDS = st.lists(st.sampled_from(["a", "b", "ab", ",", "A", "é"]), max_size=6).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(WORDS, max_size=5),
    answers=st.lists(st.lists(WORDS, max_size=3), max_size=4),
)
def test_containment_equals_a_plain_search(texts, answers):
    def holds(text, answer):
        tokens, wanted = tokenize(text), tokenize(answer)
        starts = range(len(tokens) - len(wanted) + 1)
        return bool(wanted) and any(tokens[i : i + len(wanted)] == wanted for i in starts)

    expected = [
        (query, document)
        for query, strings in enumerate(answers)
        for document, text in enumerate(texts)
        if any(holds(text, string) for string in strings)
    ]
    lookup = Answers(answers)
    found = [(query, row) for row, text in enumerate(texts) for query in lookup.asked_by(text)]
    assert sorted(found) == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40))
def test_tokens_equal_those_of_the_unicode_pattern(text):
    regex = pytest.importorskip("regex")
    pattern = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")
    expected = [m.lower() for m in pattern.findall(unicodedata.normalize("NFD", text))]
    assert tokenize(text) == expected
