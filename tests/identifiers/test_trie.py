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
        parent, code, node = trie.expand(level, np.arange(len(prefixes)))
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
    parent, code, node = trie.expand(level, nodes)
    single = [trie.expand(level, nodes[i : i + 1]) for i in range(len(nodes))]
    assert parent.tolist() == [i for i, found in enumerate(single) for _ in found[1]]
    assert code.tolist() == [int(c) for found in single for c in found[1]]
    assert node.tolist() == [int(n) for found in single for n in found[2]]


def test_equal_rows_are_refused():
    with pytest.raises(ValueError, match="same codes"):
        Trie.build(np.array([[1, 2], [1, 2]]))


def test_loaded_arrays_are_mapped(tmp_path):
    trie = Trie.build(np.array([[0, 1], [2, 0], [0, 0]]))
    trie.save(tmp_path)
    again = Trie.load(tmp_path)
    assert isinstance(again.documents.base, np.memmap)
    assert again.documents.tolist() == [2, 0, 1]
