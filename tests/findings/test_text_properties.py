"""Any text at all through the reader, for tokenisers of every kind, and through the splitter."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.datasets.words import one_line, sentences, terms, words
from tests.findings.tokenizers import KINDS, reader_at
from tests.strategies import TEXTS, spelled_alike

read_once = cache(reader_at)


def _reads_right(kind: str, alike: tuple[str, str], other: str) -> None:
    reader, special = read_once(kind)
    one, two, third = (tokens.tolist() for tokens in _rows(reader.read([*alike, other])))
    assert one == two
    for text, row in ((alike[0], one), (other, third)):
        ((bare,),) = reader.bare([text])
        assert not special & set(bare)
        room = 16 - len(reader.opening) - len(reader.closing)
        assert row == [*reader.opening, *bare[:room], *reader.closing] and 0 < len(row) <= 16
        assert max(row) < reader.vocabulary
        assert reader.read([text]).cut == (len(bare) > room)
        size, ends = reader.aligned(one_line(text))
        assert size == len(bare) == len(ends) and (np.diff(ends) >= 0).all()
        assert not len(ends) or ends[-1] <= len(one_line(text))


def _rows(tokens) -> list[np.ndarray]:
    return np.split(tokens.flat, tokens.offsets[1:-1])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(spelled_alike(), TEXTS)
def test_a_reader_reads_any_text(kind, alike, other):
    _reads_right(kind, alike, other)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=500, deadline=None)
@given(spelled_alike(), TEXTS)
def test_a_reader_reads_any_text_500(kind, alike, other):
    _reads_right(kind, alike, other)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(st.lists(spelled_alike().map(lambda texts: texts[0]), max_size=8))
def test_many_texts_are_read_as_one_by_one(kind, texts):
    reader, _ = read_once(kind)
    together, alone = reader.read(texts), [reader.read([text]) for text in texts]
    assert together.lengths.tolist() == [int(one.lengths[0]) for one in alone]
    assert together.flat.tolist() == [token for one in alone for token in one.flat.tolist()]
    assert together.cut.tolist() == [bool(one.cut[0]) for one in alone]


@settings(max_examples=100, deadline=None)
@given(spelled_alike())
def test_words_and_sentences_of_any_text(alike):
    for text in alike:
        line = one_line(text)
        found = words(line)
        assert found == sorted(found) and all(start < stop for start, stop in found)
        assert all(stop <= start for (_, stop), (start, _) in zip(found, found[1:], strict=False))
        assert words(line, 2) == found[:2]
        covered = {place for start, stop in found for place in range(start, stop)}
        assert {place for place, letter in enumerate(line) if letter.isalnum()} <= covered
        joined = "".join(sentences(text))
        assert "".join(joined.split()) == "".join(text.split())
        assert all(one == one_line(one) != "" for one in sentences(text))
    assert terms(one_line(alike[0])) == terms(one_line(alike[1]))


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.one_of(st.sampled_from("aB1_.,:;'\"-/ \r\n\t"), st.characters(max_codepoint=127)))
)
def test_terms_of_ascii_are_those_of_the_words(text):
    # Behind a letter that is not ASCII, words are found by the breaker.
    assert terms(text) == terms(f"{text} é")[:-1]
