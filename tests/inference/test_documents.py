"""The score of documents against a loop over n-grams and documents, straight from the paper."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.inference.beam import find
from genret_dask.inference.documents import NgramsScoring, gather_evidence, rank_documents
from genret_dask.inference.ngrams import NgramShortlist
from tests.identifiers.test_ngrams import make_index, occurrences
from tests.inference.test_ngram_search import (
    END,
    TEXTS,
    WORDS,
    TableSession,
    all_ngrams,
    plain_search,
)
from tests.strategies import beam_sizes


def plain_scores(texts, ngrams, scoring) -> tuple[dict[int, float], int]:
    """Documents' scores from (log-probability, identifier) pairs."""
    total = sum(map(len, texts))
    weighed = []
    for score, identifier in ngrams:
        ngram = tuple(token for token in identifier if token != END)
        count = len(occurrences(texts, ngram))
        p, share = min(math.exp(score), 1 - 1e-12), min(count / total, 1 - 1e-12)
        weight = math.log(p / (1 - p)) + math.log((1 - share) / share)
        if weight > 1e-9:
            weighed.append((weight, identifier, ngram, count))
    weighed.sort(key=lambda one: (-one[0], one[1]))
    kept, looked_up = [], 0
    for one in weighed:
        looked_up += one[3]
        if looked_up <= scoring.occurrences:
            kept.append(one)
    places = [defaultdict(list) for _ in kept]
    for place, (_, _, ngram, _) in zip(places, kept, strict=True):
        for document, at in occurrences(texts, ngram):
            place[document].append(range(at, at + len(ngram)))
    scores: dict[int, float] = {}
    for document in range(len(texts)):
        before: set[int] = set()
        heavier: list[range] = []
        for (weight, _, ngram, _), place in zip(kept, places, strict=True):
            mine = place.get(document, [])
            free = any(not any(set(one) & set(other) for other in heavier) for one in mine)
            heavier += mine
            if free:
                fresh = len(set(ngram) - before) / len(set(ngram))
                value = weight**scoring.alpha * (1 - scoring.beta + scoring.beta * fresh)
                scores[document] = scores.get(document, 0.0) + value
                before |= set(ngram)
    return scores, len(weighed) - len(kept)


@settings(deadline=None, max_examples=150)
@given(
    TEXTS,
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 3),
    beam_sizes(30, count=3),
    st.integers(1, 3),
    st.sampled_from([3, 10, 10_000]),
    st.sampled_from([0.0, 0.8, 1.0]),
    st.sampled_from([1, 5, 20]),
    st.booleans(),
)
def test_documents_score_what_the_paper_says(
    texts, parts, least, more, beams, queries, limit, beta, ranks, partials
):
    index, most = make_index(texts, parts, least), least + more
    session, beams = TableSession(100), sorted(beams)
    scoring = NgramsScoring(occurrences=limit, beta=beta)
    tokens = np.zeros((queries, 2), dtype=np.int64)
    constraint = NgramShortlist(index, least, most, partials)
    found, _ = find(session, constraint, WORDS, tokens, tokens[:, 0] + 2, beams)
    evidence = gather_evidence(found, index, END, scoring, queries)
    doc, score = rank_documents(evidence, queries, len(beams), ranks)
    ngrams = all_ngrams(texts, least, most)
    for query in range(queries):
        for place, beam in enumerate(beams):
            chosen, _ = plain_search(
                session, query, ngrams, beam, most, least if partials else None
            )
            expected, left_out = plain_scores(texts, chosen, scoring)
            assert evidence.left_out[query, place] == left_out
            mine = np.flatnonzero((evidence.query == query) & (evidence.beam == place))
            total: Counter[int] = Counter()
            for item in mine:
                total[int(evidence.document[item])] += float(evidence.value[item])
            assert dict(total) == pytest.approx(expected, rel=1e-6, abs=1e-6)
            held = doc[query, place] >= 0
            assert held.sum() == min(ranks, len(expected)) and held[: held.sum()].all()
            best = sorted(expected.values(), reverse=True)[:ranks]
            np.testing.assert_allclose(score[query, place, held], best, rtol=1e-5, atol=1e-6)
            for one, value in zip(doc[query, place, held], score[query, place, held], strict=True):
                assert expected[int(one)] == pytest.approx(float(value), rel=1e-5, abs=1e-6)
