"""Arrays are read although another thread parses at the same moment."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from genret_dask.datasets.dpr import _read_questions
from genret_dask.identifiers.entries import read_entries
from genret_dask.identifiers.tfidf import Tfidf
from genret_dask.storage.arrays import read_array

NUMBERS = np.arange(6).reshape(2, 3)


def fit(path):
    Tfidf(["a", "b"], np.zeros(2), np.ones(2), np.ones((2, 1))).save(path)


@pytest.mark.parametrize(
    "name, write, read",
    [
        ("a.npy", lambda path: np.save(path, NUMBERS), lambda path: read_array(path).tolist()),
        ("a.npy", lambda path: np.save(path, NUMBERS), lambda path: [*read_entries(path)]),
        ("a.npz", fit, lambda path: Tfidf.load(path).words),
        ("a.tsv", lambda path: path.write_text("q\t['a']"), lambda path: [*_read_questions(path)]),
    ],
    ids=["array", "identifiers", "terms", "answers"],
)
def test_a_parse_disturbed_by_another_thread_is_tried_again(
    tmp_path, monkeypatch, name, write, read
):
    path = tmp_path / name
    write(path)
    expected, parse, disturbed = read(path), ast.parse, []

    def once(*args, **keywords):
        if not disturbed:
            disturbed.append(True)
            raise SystemError("AST constructor recursion depth mismatch (before=1, after=2)")
        return parse(*args, **keywords)

    monkeypatch.setattr(ast, "parse", once)
    found = read(path)
    assert disturbed and found == expected
