"""Files of judgements in every form, against plain lists of what they say."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genret_dask.datasets.qrels import place_of, read_qrels
from genret_dask.errors import DatasetError

JUDGED = [("q1", "d1", 1), ("q1", "d2", 0), ("7", "d-9", 3), ("q3", "d1", -1)]
HEADINGS = {
    3: ["query-id corpus-id score", "qid docid relevance", "Anfrage Dokument Note"],
    4: ["query-id 0 corpus-id score", "TOPIC ITERATION DOCUMENT# RELEVANCY"],
}


def text_of(columns: int, separator: str, heading: str | None = None) -> str:
    rows = [heading.split()] if heading else []
    for query, document, grade in JUDGED:
        rows.append([query, *["0"] * (columns - 3), document, str(grade)])
    return "".join(separator.join(row) + "\n" for row in rows)


@pytest.mark.parametrize("separator", ["\t", " ", "  "])
@pytest.mark.parametrize(
    ("columns", "heading"),
    [(columns, one) for columns, known in HEADINGS.items() for one in (None, *known)],
)
def test_every_form_says_the_same(tmp_path, columns, heading, separator):
    text = text_of(columns, separator, heading)
    path = tmp_path / "qrels.tsv"
    path.write_text(text)
    found = list(read_qrels(path))
    assert [one[1:] for one in found] == JUDGED
    first = 2 if heading else 1
    assert [one.line for one in found] == list(range(first, first + len(JUDGED)))
    packed = tmp_path / "qrels.tsv.gz"
    packed.write_bytes(gzip.compress(text.replace("\n", "\r\n\r\n").encode()))
    assert [one[1:] for one in read_qrels(packed)] == JUDGED
    assert place_of([path, packed], len(JUDGED)).startswith(f"{packed}, line ")


def test_ids_with_blanks_are_kept_between_tabs(tmp_path):
    path = tmp_path / "qrels.tsv"
    path.write_text("q 1\td 1\t1.0\n")
    assert list(read_qrels(path)) == [(1, "q 1", "d 1", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (text_of(3, "\t") + text_of(4, "\t"), "line 5: 4 columns, and 3 in the first line"),
        (text_of(4, " ") + text_of(3, " "), "line 5: 3 columns, and 4 in the first line"),
        (text_of(3, "\t") + text_of(3, " "), "line 5: 1 columns"),
        (HEADINGS[3][0] + "\n" + text_of(4, " "), "line 2: 4 columns, and 3 in the first line"),
        ("q1\td1\n", "line 1: 2 columns"),
        ("q1 0 d1 1 bm25\n", "line 1: 5 columns"),
        ("q1\td1\t0.5\n", r"line 1: score '0\.5'"),
        ("q1\td1\tnan\n", "line 1: score 'nan'"),
        ("q1\td1\t1\nq1\td1\tyes\n", "line 2: score 'yes'"),
        ("q1\td1\tscore\nq1\td1\tyes\n", "line 2: score 'yes'"),
        ("q1 0 d1 2147483648\n", "line 1: score"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "qrels.tsv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        list(read_qrels(path))
    assert str(path) in str(caught.value)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_no_bytes_bring_anything_but_a_dataset_error(tmp_path, data):
    path = tmp_path / "qrels.tsv"
    path.write_bytes(data)
    try:
        found = list(read_qrels(path))
    except DatasetError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(one.grade, int) for one in found)
