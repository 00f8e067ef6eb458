"""Diagnostics against plain loops over identifiers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.identifiers import Trie, diagnostics
from genret_dask.identifiers.diagnostics import (
    distinct_tokens,
    identifier_lengths,
    level_records,
    prefix_groups,
    shared_streams,
    sharing_all_but_last,
    trie_facts,
)
from genret_dask.identifiers.stream import Stream
from tests.identifiers.test_ngrams import CORPORA, VOCABULARY, make_index
from tests.identifiers.test_trie import SEQUENCES, padded
from tests.strategies import CODES


def tries_of(identifiers: list[tuple[int, ...]]) -> list[Trie]:
    """A trie of identifiers of any length, and that of one length where they have one."""
    width = max(map(len, identifiers))
    rows = padded(identifiers, width)
    fixed = [Trie.build(rows)] if len({*map(len, identifiers)}) == 1 else []
    return [Trie.build(rows, closed=True), *fixed]


@settings(deadline=None)
@given(SEQUENCES | CODES)
def test_groups_and_lengths_are_those_of_a_scan(identifiers):
    for trie in tries_of(identifiers):
        lengths = Counter(map(len, identifiers))
        assert identifier_lengths(trie).tolist() == [lengths[n] for n in range(trie.depth + 1)]
        groups = prefix_groups(trie)
        assert len(groups) == trie.depth
        for level, sizes in enumerate(groups, 1):
            counted = Counter(one[:level] for one in identifiers if len(one) >= level)
            assert sizes.tolist() == [counted[prefix] for prefix in sorted(counted)]
            assert sizes.sum() == sum(len(one) >= level for one in identifiers)
        siblings = Counter((one[:-1], len(one)) for one in identifiers)
        assert sharing_all_but_last(trie) == sum(n for n in siblings.values() if n > 1)


@settings(deadline=None)
@given(SEQUENCES | CODES, st.integers(0, 3), st.booleans())
def test_levels_are_those_of_a_scan(identifiers, more, given_sizes):
    for trie in tries_of(identifiers):
        columns = defaultdict(list)
        for one in identifiers:
            for level, token in enumerate(one):
                columns[level].append(token)
        sizes = [max(columns[level]) + 1 + more for level in range(trie.depth)]
        for level, record in enumerate(level_records(trie, sizes if given_sizes else None)):
            counts = Counter(columns[level])
            cells = sizes[level] if given_sizes else len(counts)
            shares = [count / sum(counts.values()) for count in counts.values()]
            prefixes = Counter(one[: level + 1] for one in identifiers if len(one) > level)
            assert record.pop("entropy") == pytest.approx(-sum(p * math.log2(p) for p in shares))
            assert record.pop("entropy_of_equals") == pytest.approx(math.log2(cells))
            assert record.pop("group_mean") == pytest.approx(sum(prefixes.values()) / len(prefixes))
            assert record == {
                "level": level + 1,
                "cells": cells,
                "dead": cells - len(counts),
                "prefixes": len(prefixes),
                "group_median": median(prefixes.values()),
                "group_largest": max(prefixes.values()),
            }


@settings(deadline=None)
@given(SEQUENCES, st.integers(0, 5))
def test_facts_of_a_trie(identifiers, more):
    trie = Trie.build(padded(identifiers), closed=True)
    lengths = [len(one) for one in identifiers]
    assert trie_facts(trie, len(identifiers) + more) == {
        "tokens_least": min(lengths),
        "tokens_mean": pytest.approx(sum(lengths) / len(lengths)),
        "tokens_most": max(lengths),
        "sharing_all_but_last_token": sharing_all_but_last(trie),
        "unreachable": more,
    }


@settings(deadline=None)
@given(CORPORA, st.integers(1, 4), st.integers(1, 40))
def test_streams_are_compared_whole(texts, parts, chunk):
    index = make_index(texts, parts)
    streams = [part.stream for part in index.parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnostics, "_CHUNK", chunk)
        counts = Counter(map(tuple, texts))
        assert shared_streams(streams) == sum(n for n in counts.values() if n > 1)
        assert distinct_tokens(streams, VOCABULARY) == len({t for text in texts for t in text})


def test_texts_of_a_document_are_taken_together_and_their_ends_count():
    def stream(*documents: list[list[int]]) -> Stream:
        runs = [[*text, 0] for document in documents for text in document]
        owners = [row for row, document in enumerate(documents) for _ in document]
        starts = np.cumsum([0, *map(len, runs[:-1])])
        tokens = np.array([token for run in runs for token in run], np.uint16)
        return Stream(tokens, starts, np.array(owners, np.int32))

    one, other = [[1, 2], [3]], [[1], [2, 3]]
    assert shared_streams([stream(one, other, [[3], [1, 2]])]) == 0
    assert shared_streams([stream(one, other), stream(other, one, one)]) == 5
    assert shared_streams([Stream(*np.empty((3, 0), np.int64))]) == 0
