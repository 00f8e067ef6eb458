"""Pairs of a user's files, and the training pairs that they become, against plain loops."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genret_dask.datasets import given as module
from genret_dask.datasets.given import read_given, write_given
from genret_dask.datasets.pairs import TrainingPairs
from genret_dask.errors import DatasetError
from genret_dask.specs import PairsSpec
from tests.conftest import make_collection
from tests.strategies import JSON

COLLECTION = make_collection(12)
PAIRS = [(row % 5 * 2, f"query {row}") for row in range(23)]
ALONE = PairsSpec(queries=False, documents=False, sentences=0, spans=0, file=("pairs.tsv",))


def tsv(pairs=PAIRS) -> str:
    return "".join(f"d{row}\t{text}\n" for row, text in pairs)


def jsonl(document: str, text: str) -> str:
    return "".join(json.dumps({document: f"d{row}", text: one}) + "\n" for row, one in PAIRS)


def read(folder: Path, *contents: str | bytes):
    """The pairs of files of these contents."""
    files = []
    for number, content in enumerate(contents):
        files.append(folder / f"{number}.tsv{'.gz' if isinstance(content, bytes) else ''}")
        files[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
    write_given(COLLECTION, files, folder / "pairs")
    return read_given(folder / "pairs")


def rows_of(found) -> list[tuple[int, str]]:
    return [*zip(found.document.tolist(), found.texts, strict=True)]


@pytest.mark.parametrize("block", [1, 5, 2**17])
def test_every_form_says_the_same(tmp_path, monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    forms = [jsonl("doc_id", "query"), jsonl("_id", "text"), jsonl("docid", "text")]
    for number, content in enumerate([tsv(), gzip.compress(tsv().encode()), *forms]):
        (folder := tmp_path / str(number)).mkdir()
        assert rows_of(read(folder, content)) == PAIRS
    (folder := tmp_path / "several").mkdir()
    assert rows_of(read(folder, tsv(), forms[0])) == [*PAIRS, *PAIRS]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tsv() + "d99\tq\n", r"0\.tsv, line 24: toy has no document 'd99'"),
        (tsv() + "\tq\n", "line 24: toy has no document ''"),
        (tsv() + "d1\t \n", "line 24: the query is empty"),
        (tsv() + "d1\n", "line 24: 1 columns"),
        (tsv() + "d1\tq\tmore\n", "line 24: 3 columns"),
        (tsv() + '{"doc_id": "d1", "query": "q"}\n', "line 24: 1 columns"),
        (jsonl("_id", "text") + "d1\tq\n", "line 24: not JSON"),
        (jsonl("_id", "text") + '{"_id": "d1"}\n', r"line 24: no query \(nor text\); its .*: _id"),
        (jsonl("_id", "text") + '{"query": "q"}\n', r"line 24: no doc_id \(nor _id, docid, id\)"),
        (jsonl("_id", "text") + '{"_id": "d1", "text": 3}\n', "line 24: text is a int"),
        ("", "has no pair"),
        (b"damaged", "damaged"),
    ],
)
def test_bad_files_say_where(tmp_path, content, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read(tmp_path, content)
    assert caught.value.exit_code == 2


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=30) | JSON.map(lambda one: json.dumps(one).encode()))
def test_no_line_brings_anything_but_a_dataset_error(tmp_path, data):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(tsv().encode() + data)
    try:
        write_given(COLLECTION, [path], tmp_path / "pairs")
    except DatasetError as error:
        assert str(path) in str(error)


def take_all(pairs: TrainingPairs) -> list[tuple[int, str]]:
    drawn = pairs.take(np.arange(len(pairs)))
    return [*zip(drawn.document.tolist(), drawn.texts, strict=True)]


def test_they_are_pairs_beside_others_or_alone(tmp_path):
    rows = [*PAIRS, PAIRS[0]]
    found = read(tmp_path, tsv(rows))
    alone = TrainingPairs(COLLECTION, ALONE, 0, given=found)
    assert (alone.queries, alone.others) == (0, len(rows))
    assert Counter(take_all(alone)) == Counter(rows)
    spec = PairsSpec(sentences=2, spans=1, file=("pairs.tsv",))
    beside, without = (TrainingPairs(COLLECTION, spec, 0, given=one) for one in (found, None))
    assert beside.queries == without.queries
    assert Counter(take_all(beside)) == Counter(take_all(without)) + Counter(rows)


def test_those_of_excluded_documents_are_left_out(tmp_path):
    found = read(tmp_path, tsv())
    texts = [*COLLECTION.texts]
    texts[2] = " "
    bare = replace(COLLECTION, texts=texts)
    for excluded in ([], [0], [4, 8], [1]):
        pairs = TrainingPairs(bare, ALONE, 0, excluded=excluded, given=found)
        kept = [one for one in PAIRS if one[0] not in {2, *excluded}]
        assert Counter(take_all(pairs)) == Counter(kept)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 9), st.sampled_from([0, 2]))
def test_fractions_are_nested(tmp_path, first, second, seed, spans):
    found = read(tmp_path, tsv())
    spec = ALONE.model_copy(update={"spans": spans, "queries": True})
    sides = []
    for part in sorted((first, second)):
        pairs = TrainingPairs(COLLECTION, spec, seed, part, given=found)
        assert pairs.others == round(part * (12 * spans + len(PAIRS))) or len(pairs) == 1
        sides.append(Counter(take_all(pairs)))
    assert sides[0] <= sides[1]


def test_texts_are_on_one_line(tmp_path):
    found = read(tmp_path, '{"doc_id": "d3", "query": "of  two\\n lines"}\n')
    assert take_all(TrainingPairs(COLLECTION, ALONE, 0, given=found)) == [(3, "of two lines")]
