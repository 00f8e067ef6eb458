"""The trie against a dict of prefixes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genret_dask.identifiers import Trie
from tests.strategies import CODES


@given(CODES)
def test_expand_equals_a_scan_of_all_identifiers(identifiers):
    trie = Trie.build(np.array(identifiers, dtype=np.int32))
    prefixes = [()]
    for level in range(trie.depth):
        parent, code, node = trie.expand(np.arange(len(prefixes)), level)
        expected = sorted({identifier[: level + 1] for identifier in identifiers})
        assert [(*prefixes[p], int(c)) for p, c in zip(parent, code, strict=True)] == expected
        assert node.tolist() == list(range(len(expected)))
        prefixes = expected
    assert [identifiers[row] for row in trie.documents] == prefixes


@given(CODES, st.data())
def test_expand_takes_nodes_in_any_order_and_twice(identifiers, data):
    trie = Trie.build(np.array(identifiers, dtype=np.int32))
    level = data.draw(st.integers(0, trie.depth - 1))
    count = len(trie.children[level]) - 1
    nodes = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=6)), dtype=np.int64)
    parent, code, node = trie.expand(nodes, level)
    single = [trie.expand(nodes[i : i + 1], level) for i in range(len(nodes))]
    assert parent.tolist() == [i for i, found in enumerate(single) for _ in found[1]]
    assert code.tolist() == [int(c) for found in single for c in found[1]]
    assert node.tolist() == [int(n) for found in single for n in found[2]]


SEQUENCES = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=40,
    unique=True,
)


def padded(identifiers: list[tuple[int, ...]], width: int = 5) -> np.ndarray:
    rows = np.full((len(identifiers), width), -1)
    for row, identifier in zip(rows, identifiers, strict=True):
        row[: len(identifier)] = identifier
    return rows


@given(SEQUENCES, st.integers(4, 6))
def test_sequences_of_any_length_equal_a_scan_of_all(identifiers, width):
    trie = Trie.build(padded(identifiers, width), closed=True)
    assert trie.steps == max(map(len, identifiers)) + 1 and not trie.keeps_ended
    prefixes, found = [()], set()
    for depth in range(trie.steps):
        nodes = np.arange(len(prefixes))
        ends = np.flatnonzero(trie.ends(nodes, depth))
        assert [prefixes[n] for n in ends] == [one for one in prefixes if one in identifiers]
        documents = trie.found(ends, np.full(len(ends), depth + 1))
        assert [identifiers[d] for d in documents] == [prefixes[n] for n in ends]
        found |= set(documents.tolist())
        parent, token, node = trie.expand(nodes, depth)
        expected = sorted({one[: depth + 1] for one in identifiers if len(one) > depth})
        assert [(*prefixes[p], int(t)) for p, t in zip(parent, token, strict=True)] == expected
        assert node.tolist() == list(range(len(expected)))
        prefixes = expected
    assert prefixes == [] and found == set(range(len(identifiers)))
    assert [identifiers[row] for row in trie.documents] == sorted(identifiers)


@given(CODES)
def test_codes_that_close_with_an_end_token_have_the_same_trie(identifiers):
    codes = np.array(identifiers, dtype=np.int32)
    fixed, closed = Trie.build(codes), Trie.build(codes, closed=True)
    for name in ("children", "codes"):
        for one, other in zip(getattr(fixed, name), getattr(closed, name), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(fixed.documents, closed.documents)
    assert closed.steps == fixed.steps + 1


@pytest.mark.parametrize(
    ("rows", "closed", "message"),
    [
        ([[1, 2], [1, 2]], False, "same codes"),
        ([[1, 2], [1, 2]], True, "same codes"),
        ([[1, -1], [1, -1]], True, "same codes"),
        ([[1, -1], [1, 2]], False, "closed=True"),
        ([[1, 2], [-1, -1]], True, "document 1 has no token"),
        ([[1, 2], [-1, 2]], True, "document 1 has -1 before a token"),
    ],
)
def test_rows_that_are_no_identifiers_are_refused(rows, closed, message):
    with pytest.raises(ValueError, match=message):
        Trie.build(np.array(rows), closed)


def test_loaded_arrays_are_mapped(tmp_path):
    trie = Trie.build(np.array([[0, 1], [2, 0], [0, 0]]))
    trie.save(tmp_path)
    again = Trie.load(tmp_path)
    assert isinstance(again.documents.base, np.memmap)
    assert again.documents.tolist() == [2, 0, 1]


def test_loaded_sequences_are_those_that_were_saved(tmp_path):
    trie = Trie.build(padded([(0, 1), (2,), (0,)]), closed=True)
    trie.save(tmp_path)
    again = Trie.load(tmp_path)
    for name in ("children", "codes", "endings"):
        for one, other in zip(getattr(trie, name), getattr(again, name), strict=True):
            np.testing.assert_array_equal(one, other)
    assert again.documents.tolist() == [2, 0, 1]
