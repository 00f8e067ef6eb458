"""The n-gram index against a scan of the corpus."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.errors import ModelError
from genret_dask.identifiers import ngrams
from genret_dask.identifiers.ngrams import NgramIndex, Part
from genret_dask.identifiers.stream import Stream
from genret_dask.identifiers.suffix_array import SuffixArray
from tests.strategies import token_texts

VOCABULARY = 6
CORPORA = token_texts(VOCABULARY, documents=12, tokens=24)


def make_index(
    texts: list[list[int]], parts: int = 1, least: int = 1, vocabulary: int = VOCABULARY
) -> NgramIndex:
    """An index of texts, text i being document i, in as many parts as there are texts for."""
    made = []
    for rows in np.array_split(np.arange(len(texts)), min(parts, len(texts))):
        runs = [np.append(np.array(texts[row]) + 1, 0) for row in rows]
        tokens = np.concatenate(runs).astype(np.uint16)
        starts = np.cumsum([0, *(len(run) for run in runs[:-1])])
        stream = Stream(tokens, starts, rows.astype(np.int32))
        made.append(Part.build(stream, vocabulary, least))
    return NgramIndex(tuple(made), vocabulary, "tokenizer", "corpus")


def occurrences(texts: list[list[int]], prefix: tuple[int, ...]) -> list[tuple[int, int]]:
    """(document, place) of a prefix, by looking everywhere."""
    n = len(prefix)
    return [
        (row, at)
        for row, text in enumerate(texts)
        for at in range(len(text) - n + 1)
        if tuple(text[at : at + n]) == prefix
    ]


def walk(index: NgramIndex, prefix: tuple[int, ...]) -> np.ndarray:
    state = index.root(1)
    for depth, token in enumerate(prefix):
        state = index.refine(state, depth, np.array([token]))
    return state


@settings(deadline=None)
@given(
    CORPORA, st.integers(1, 4), st.integers(1, 3), st.integers(0, 7), st.integers(1, 40), st.data()
)
def test_expand_is_a_scan_of_the_corpus(texts, parts, least, read, at_once, data):
    index = make_index(texts, parts, least)
    prefixes = []
    for _ in range(data.draw(st.integers(1, 5))):
        text = data.draw(st.sampled_from(texts))
        start = data.draw(st.integers(0, len(text)))
        prefixes.append(tuple(text[start : start + data.draw(st.integers(0, 5))]))
    depth = min(map(len, prefixes))
    prefixes = [prefix[:depth] for prefix in prefixes]
    states = np.concatenate([walk(index, prefix) for prefix in prefixes])
    before = ngrams._READ, ngrams._AT_ONCE
    ngrams._READ, ngrams._AT_ONCE = read, at_once
    try:
        row, token, children = index.expand(states, depth)
    finally:
        ngrams._READ, ngrams._AT_ONCE = before
    found = dict(
        zip(zip(row.tolist(), token.tolist(), strict=True), index.count(children), strict=True)
    )
    expected = Counter(
        (place, texts[document][at + depth])
        for place, prefix in enumerate(prefixes)
        for document, at in occurrences(texts, prefix)
        if at + max(depth + 1, least) <= len(texts[document])
    )
    assert found == dict(expected)
    assert len(found) == len(row)
    assert (np.diff(row * VOCABULARY + token) > 0).all()


@settings(deadline=None)
@given(CORPORA, st.integers(1, 4), st.lists(st.integers(0, VOCABULARY - 1), max_size=6))
def test_a_prefix_is_where_it_occurs(texts, parts, prefix):
    index = make_index(texts, parts)
    state = walk(index, tuple(prefix))
    if not prefix:
        assert index.count(state) == index.tokens == sum(map(len, texts))
        return
    expected = occurrences(texts, tuple(prefix))
    assert index.count(state) == len(expected)
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    row, position, document = index.locate(state)
    assert not row.any()
    assert (
        sorted(zip(document.tolist(), (position - starts[document]).tolist(), strict=True))
        == expected
    )


@settings(deadline=None)
@given(CORPORA, st.integers(1, 4), st.integers(1, 3), st.data())
def test_kept_to_some_documents_it_is_the_index_of_these(texts, parts, least, data):
    kept = data.draw(st.sets(st.integers(0, len(texts) - 1)).map(sorted))
    whole = make_index(texts, parts, least)
    index = whole.within(np.array(kept, dtype=np.int64))
    assert index.tokens == sum(len(texts[row]) for row in kept)
    states = index.root(1)
    prefixes = [()]
    for depth in range(4):
        row, token, states = index.expand(states, depth)
        prefixes = [(*prefixes[place], int(one)) for place, one in zip(row, token, strict=True)]
        expected = Counter(
            tuple(texts[document][start : start + depth + 1])
            for document in kept
            for start in range(len(texts[document]) + 1 - max(depth + 1, least))
        )
        assert dict(zip(prefixes, index.count(states).tolist(), strict=True)) == dict(expected)
        at, _, document = index.locate(states)
        assert {*document.tolist()} <= {*kept}
        assert np.bincount(at, minlength=len(prefixes)).tolist() == index.count(states).tolist()
    longest = max(map(len, texts))
    everything = np.tile([0, longest], (len(texts), 1))
    rows = np.arange(len(texts))
    for mine, theirs in zip(index.spans(rows, everything, longest), texts, strict=True):
        assert mine[mine >= 0].tolist() == theirs


def test_a_token_outside_the_vocabulary_is_refused():
    index = make_index([[0, 1, 2]])
    with pytest.raises(ModelError, match="token 6"):
        index.refine(index.root(1), 0, np.array([6]))


def test_a_stream_is_closed_and_within_its_vocabulary():
    with pytest.raises(ValueError, match="separator"):
        SuffixArray.build(np.array([1, 2], dtype=np.uint16), 6)
    with pytest.raises(ValueError, match="above the vocabulary"):
        SuffixArray.build(np.array([1, 9, 0], dtype=np.uint16), 6)


def test_a_wide_vocabulary_has_wide_tokens():
    texts = [[70_000, 5, 70_000, 6], [6, 70_000]]
    stream = Stream(
        np.array([70_001, 6, 70_001, 7, 0, 7, 70_001, 0], dtype=np.uint32),
        np.array([0, 5]),
        np.array([0, 1], dtype=np.int32),
    )
    index = NgramIndex((Part.build(stream, 70_002),), 70_002, "", "")
    row, token, children = index.expand(walk(index, (70_000,)), 1)
    assert token.tolist() == [5, 6] and index.count(children).tolist() == [1, 1]
    assert index.count(walk(index, (70_000,))) == len(occurrences(texts, (70_000,)))


@settings(deadline=None)
@given(CORPORA, st.integers(1, 4), st.data())
def test_spans_are_of_a_documents_first_text(texts, parts, data):
    owners = np.sort(
        data.draw(st.lists(st.integers(0, 9), min_size=len(texts), max_size=len(texts)))
    )
    cuts = [0, *np.flatnonzero(np.diff(owners)) + 1, len(texts)]  # a document is in one part
    index = make_index(texts)
    made = []
    for group in np.array_split(np.arange(len(cuts) - 1), min(parts, len(cuts) - 1)):
        rows = np.arange(cuts[group[0]], cuts[group[-1] + 1])
        stream = make_index([texts[row] for row in rows]).parts[0].stream
        part = Stream(stream.tokens, stream.starts, owners[rows].astype(np.int32))
        made.append(Part.build(part, VOCABULARY))
    index = NgramIndex(tuple(made), VOCABULARY, "tokenizer", "corpus")
    mine = {
        row: [text for text, owner in zip(texts, owners, strict=True) if owner == row]
        for row in range(11)
    }
    first, longest = index.lengths(11)
    assert first.tolist() == [len(mine[row][0]) if mine[row] else 0 for row in range(11)]
    assert longest.tolist() == [max(map(len, mine[row]), default=0) for row in range(11)]
    documents = np.array(data.draw(st.lists(st.integers(0, 10), max_size=8)), dtype=np.int64)
    places = st.tuples(st.integers(-1, 6), st.integers(-1, 30))
    spans = np.array([data.draw(places) for _ in documents], dtype=np.int64).reshape(-1, 2)
    found = index.spans(documents, spans, 4)
    for document, (start, stop), row in zip(documents.tolist(), spans.tolist(), found, strict=True):
        text = mine[document][0] if mine[document] else []
        expected = text[start:stop][:4] if 0 <= start < stop else []
        assert row.tolist() == (expected + [-1] * 4)[:4]
