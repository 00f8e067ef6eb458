"""n-gram search against plain Python over a dict of all n-grams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.inference.beam import find
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.ngrams import NgramConstraint, NgramShortlist
from genret_dask.inference.rows import Rows
from tests.identifiers.test_ngrams import CORPORA, VOCABULARY, make_index, occurrences
from tests.strategies import beam_sizes

END = VOCABULARY - 1  # texts below do not hold it
WORDS = Vocabulary(VOCABULARY, np.zeros(8, dtype=np.int64), (VOCABULARY,) * 8, END)
TEXTS = CORPORA.map(lambda texts: [[token % END for token in text] for text in texts])


@dataclass
class TableSession:
    """Logits that depend on query and prefix alone; few distinct ones, so that scores tie."""

    levels: int

    def logits(self, query: int, prefix: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng((query, *(token + 1 for token in prefix)))
        return rng.integers(0, self.levels, VOCABULARY).astype(np.float32)

    def partition(self, logits: np.ndarray) -> np.float32:
        return np.float32(np.log(np.exp(logits.astype(np.float64)).sum()))

    def prefill(self, tokens, lengths):
        return [[()] for _ in tokens]

    def step(self, state, tokens, parents, rows):
        prefixes = [
            [
                (*state[query][parent], int(token))
                for parent, token in zip(parents[query], tokens[query], strict=True)
            ]
            for query in range(len(tokens))
        ]
        logits = np.array(
            [
                [self.logits(query, prefix[1:]) for prefix in mine]
                for query, mine in enumerate(prefixes)
            ]
        )
        partition = np.array([[self.partition(one) for one in mine] for mine in logits])
        return logits[..., rows[0] : rows[1]], partition, prefixes


def likeliest_first(found: Rows) -> Rows:
    return found.take(np.lexsort((-found.score, found.query)))


def all_ngrams(texts: list[list[int]], least: int, most: int) -> dict[tuple[int, ...], int]:
    """Every identifier and how often its n-gram occurs: full ones, and short ones with an end."""
    found: dict[tuple[int, ...], int] = {}
    for text in texts:
        for start in range(len(text)):
            for length in range(least, most + 1):
                if start + length <= len(text):
                    ngram = tuple(text[start : start + length])
                    ngram = ngram if length == most else (*ngram, END)
                    found[ngram] = found.get(ngram, 0) + 1
    return found


def plain_search(session, query, ngrams, beam, steps, least=None):
    """Beam search over a dict of prefixes, one token at a time, ties by token sequence.

    With `least`, prefixes of so many tokens or more that were kept are found as well.
    """
    prefixes = {ngram[:length] for ngram in ngrams for length in range(len(ngram) + 1)}
    live, decoded, kept = [(0.0, ())], [0] * steps, []
    for level in range(steps):
        grown = []
        for score, prefix in live:
            if prefix in ngrams:
                grown.append((score, prefix))
                continue
            decoded[level] += 1
            logits = session.logits(query, prefix)
            partition = float(session.partition(logits))
            grown += [
                (score + (float(logits[token]) - partition), (*prefix, token))
                for token in range(VOCABULARY)
                if (*prefix, token) in prefixes
            ]
        live = sorted(grown, key=lambda one: (-one[0], one[1]))[:beam]
        if least is not None and level + 1 >= least:
            kept += [one for one in live if one[1] not in ngrams]
    return sorted(kept + live, key=lambda one: (-one[0], one[1])), decoded


@settings(deadline=None, max_examples=150)
@given(
    TEXTS,
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 4),
    beam_sizes(12),
    st.integers(1, 3),
    st.integers(1, 40),
    st.sampled_from([2, 100]),
    st.booleans(),
    st.booleans(),
)
def test_search_is_plain_beam_search(
    texts, parts, least, more, beams, queries, listed, levels, partials, listing
):
    index, most = make_index(texts, parts, least), least + more
    constraint = NgramShortlist(index, least, most, partials, listed)
    if listing:
        constraint = NgramConstraint(index, least, most, partials)
    session, beams = TableSession(levels), sorted(beams)
    ngrams = all_ngrams(texts, least, most)
    tokens = np.zeros((queries, 2), dtype=np.int64)
    found, decoded = find(session, constraint, WORDS, tokens, tokens[:, 0] + 2, beams)
    found = likeliest_first(found)
    counts = index.count(found.states)
    for query in range(queries):
        for place, beam in enumerate(beams):
            held = np.flatnonzero(found.member[place] & (found.query == query))
            expected, rows = plain_search(
                session, query, ngrams, beam, most, least if partials else None
            )
            mine = [tuple(row[row >= 0].tolist()) for row in found.token[held]]
            assert mine == [ngram for _, ngram in expected]
            np.testing.assert_allclose(
                found.score[held], [score for score, _ in expected], atol=1e-6
            )
            assert counts[held].tolist() == [
                len(occurrences(texts, tuple(token for token in ngram if token != END)))
                for ngram in mine
            ]
            assert decoded[query, place].tolist() == rows
            if beam >= len(ngrams):
                assert set(mine) >= set(ngrams)
    losses = found.logit.astype(float) - found.log_partition
    np.testing.assert_allclose(np.nansum(losses, axis=1), found.score, atol=1e-4)
    assert ((found.token >= 0) == ~np.isnan(losses)).all()
    if not listing:
        assert np.isnan(found.log_allowed).all()
        return
    for query, row, allowed in zip(found.query, found.token, found.log_allowed, strict=True):
        ngram = tuple(row[row >= 0].tolist())
        expected = [
            np.log(sum(np.exp(float(session.logits(query, prefix)[token])) for token in follow))
            for prefix in (ngram[:length] for length in range(len(ngram)))
            for follow in [
                {
                    one[len(prefix)]
                    for one in ngrams
                    if one[: len(prefix)] == prefix and one != prefix
                }
            ]
        ]
        np.testing.assert_allclose(allowed[: len(ngram)], expected, atol=1e-4)
        assert np.isnan(allowed[len(ngram) :]).all()
