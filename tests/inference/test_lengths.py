"""Identifiers of any length: search against plain Python, enumeration and transformers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.identifiers import Trie
from genret_dask.inference import resident
from genret_dask.inference.beam import search
from genret_dask.inference.constraint import Vocabulary
from tests.conftest import FAMILIES, SMALL, TEXT_ROWS, TinyModel, make_model, random_codes
from tests.inference.test_beam import QUERIES, TableSession, check_allowed, pad

ROWS = 7  # the start token, which is 0, and those that identifiers and their ends are made of
SEQUENCES = st.lists(
    st.lists(st.integers(2, ROWS - 2), min_size=1, max_size=5), min_size=1, max_size=25,
    unique_by=tuple,
)  # fmt: skip


def make_trie(identifiers: list[list[int]]) -> Trie:
    rows = np.full((len(identifiers), max(map(len, identifiers)) + 1), -1)
    for row, identifier in zip(rows, identifiers, strict=True):
        row[: len(identifier)] = identifier
    return Trie.build(rows, closed=True)


def words(start: int, rows: int, end: int, steps: int) -> Vocabulary:
    return Vocabulary(start, np.zeros(steps, dtype=np.int64), (rows,) * steps, end)


def plain_search(session, query, identifiers, end, beam, steps):
    """Beam search with a pool of the best, one token at a time, ties by token sequence."""
    closed = {(*identifier, end) for identifier in identifiers}
    prefixes = {one[:length] for one in closed for length in range(len(one) + 1)}
    live, pool, decoded = [(0.0, ())], [], [0] * steps
    for depth in range(steps):
        decoded[depth] = len(live)
        children = []
        for score, prefix in live:
            logits = session._logits(query, (0, *prefix)).astype(np.float32)
            partition = np.float32(np.log(np.exp(logits.astype(float)).sum()))
            children += [
                (score + (float(logits[token]) - float(partition)), (*prefix, token))
                for token in range(ROWS)
                if (*prefix, token) in prefixes
            ]
        children.sort(key=lambda child: (-child[0], child[1]))
        pool += [child for child in children[:beam] if child[1] in closed]
        pool = sorted(pool, key=lambda child: (-child[0], child[1]))[:beam]
        live = [child for child in children if child[1] not in closed][:beam]
        worst = pool[-1][0] if len(pool) == beam else -np.inf
        if not live or live[0][0] <= worst:
            break
    return pool, decoded


@settings(max_examples=150, deadline=None)
@given(
    SEQUENCES,
    st.sampled_from([1, ROWS - 1]),
    st.lists(st.integers(1, 30), min_size=1, max_size=4, unique=True),
    st.integers(1, 3),
    st.sampled_from([1, 2, 50]),
    st.integers(0, 99),
)
def test_the_grid_equals_plain_separate_searches(identifiers, end, beams, queries, values, seed):
    session, trie = TableSession(ROWS, values, seed), make_trie(identifiers)
    tokens, lengths = pad([[q + 1, seed] for q in range(queries)])
    vocabulary = words(0, ROWS, end, trie.steps)
    found = search(session, trie, vocabulary, tokens, lengths, beams)
    for q in range(queries):
        query = tuple(tokens[q].tolist())
        for place, beam in enumerate(beams):
            expected, decoded = plain_search(session, query, identifiers, end, beam, trie.steps)
            size = len(expected)
            mine = [tuple(row[row >= 0].tolist()) for row in found.token[q, place, :size]]
            assert mine == [identifier for _, identifier in expected]
            assert [(*identifiers[d], end) for d in found.doc[q, place, :size]] == mine
            assert (found.doc[q, place, size:] == -1).all()
            assert found.rows_decoded[q, place].tolist() == decoded
            np.testing.assert_allclose(
                found.score[q, place, :size], [score for score, _ in expected], atol=1e-5
            )
    closed = [(*identifier, end) for identifier in identifiers]
    check_allowed(found, tokens.tolist(), closed, session.logits_behind)
    losses = found.logit.astype(float) - found.log_partition
    assert ((found.token >= 0) == ~np.isnan(losses)).all()


@settings(max_examples=40, deadline=None)
@given(SEQUENCES, st.integers(0, 99))
def test_a_beam_for_every_prefix_finds_every_identifier_by_its_score(identifiers, seed):
    session, trie = TableSession(ROWS, 50, seed), make_trie(identifiers)
    found = search(session, trie, words(0, ROWS, 1, trie.steps), *pad([[seed]]), (200,))
    scores = []
    for identifier in identifiers:
        total = 0.0
        for length, token in enumerate([*identifier, 1]):
            logits = session._logits((seed,), (0, *identifier[:length]))
            total += logits[token] - np.log(np.exp(logits).sum())
        scores.append(total)
    order = np.argsort(-np.array(scores), kind="stable")
    assert sorted(found.doc[0, 0].tolist()) == list(range(len(identifiers)))
    np.testing.assert_allclose(found.score[0, 0], np.array(scores)[order], atol=1e-4)
    for one, score in zip(found.doc[0, 0], found.score[0, 0], strict=True):
        assert scores[one] == pytest.approx(score, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 9))
def test_tokens_of_different_identifiers_are_not_mixed(seed, beam):
    identifiers = [[1, 2, 3], [8, 2, 9]]
    trie = make_trie(identifiers)
    session = TableSession(10, 50, seed)
    found = search(session, trie, words(0, 10, 7, trie.steps), *pad([[seed]]), (beam,))
    rows = found.token[0, 0, found.doc[0, 0] >= 0].tolist()
    assert len(rows) == min(beam, 2)
    assert all(row in ([1, 2, 3, 7], [8, 2, 9, 7]) for row in rows)


def generated(tiny: TinyModel, query, identifiers, end, beam):
    """Identifiers and scores that transformers' own constrained search finds."""
    following: dict[tuple[int, ...], set[int]] = {}
    for identifier in identifiers:
        closed = [*identifier, end]
        for length, token in enumerate(closed):
            following.setdefault(tuple(closed[:length]), set()).add(token)
    opening, prompt = len(query) + 1, [*query, TEXT_ROWS]
    if tiny.hf.config.is_encoder_decoder:
        opening, prompt = 1, query
    out = tiny.hf.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=beam,
        num_return_sequences=beam,
        max_new_tokens=max(map(len, identifiers)) + 1,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=False,
        eos_token_id=end,
        pad_token_id=TEXT_ROWS,
        prefix_allowed_tokens_fn=lambda _, ids: sorted(
            following.get(tuple(ids.tolist()[opening:]), {TEXT_ROWS})
        ),
        output_scores=True,
        return_dict_in_generate=True,
    )
    scores = out.sequences_scores.numpy()
    kept = scores > -1e8  # its beams without a prefix of their own start at -1e9
    found = []
    for ids in out.sequences[torch.from_numpy(kept)].tolist():
        identifier = ids[opening:]
        found.append(identifier[: identifier.index(end) + 1])
    return found, scores[kept]


@settings(max_examples=20, deadline=None)
@given(
    QUERIES,
    st.lists(
        st.lists(st.integers(2, 5), min_size=1, max_size=5), min_size=1, max_size=60,
        unique_by=tuple,
    ),
    st.sampled_from([1, 20]),
    st.lists(st.integers(2, 15), min_size=1, max_size=3, unique=True),
)  # fmt: skip
def test_any_trie_and_grid_equal_transformers_generate(tiny, queries, identifiers, end, beams):
    trie = make_trie(identifiers)
    rows = TEXT_ROWS + 1 + tiny.codes.rows
    vocabulary = words(TEXT_ROWS, rows, end, trie.steps)
    found = search(tiny.session, trie, vocabulary, *pad(queries), beams)
    for row, query in enumerate(queries):
        for place, beam in enumerate(beams):
            expected, scores = generated(tiny, query, identifiers, end, beam)
            size = len(expected)
            mine = [one[one >= 0].tolist() for one in found.token[row, place, :size]]
            assert mine == expected
            assert (found.doc[row, place, size:] == -1).all()
            np.testing.assert_allclose(found.score[row, place, :size], scores, atol=1e-4)


@pytest.mark.parametrize("family", [name for name in SMALL if name not in FAMILIES])
def test_every_family_equals_transformers_generate(family, tmp_path):
    tiny = make_model(family, random_codes(3, (2, 2), 1), tmp_path)
    rng = np.random.default_rng(5)
    identifiers = [rng.integers(2, 6, rng.integers(1, 5)).tolist() for _ in range(40)]
    identifiers = [list(one) for one in sorted({tuple(one) for one in identifiers})]
    trie, queries, beams = make_trie(identifiers), [[3, 1, 4], [9]], [3, 8]
    vocabulary = words(TEXT_ROWS, TEXT_ROWS, 1, trie.steps)
    found = search(tiny.session, trie, vocabulary, *pad(queries), beams)
    for row, query in enumerate(queries):
        for place, beam in enumerate(beams):
            expected, scores = generated(tiny, query, identifiers, 1, beam)
            mine = [one[one >= 0].tolist() for one in found.token[row, place, : len(expected)]]
            assert mine == expected
            np.testing.assert_allclose(found.score[row, place, : len(expected)], scores, atol=1e-4)


def test_the_search_on_a_device_leaves_them_to_the_one_on_the_host(tiny):
    trie = make_trie([[3], [3, 4], [5, 3, 2]])
    vocabulary = words(TEXT_ROWS, TEXT_ROWS + 1, 1, trie.steps)
    arguments = tiny.session, trie, vocabulary, *pad([[1, 2], [3]]), (1, 3)
    for one, other in pairwise((vars(resident.search(*arguments)), vars(search(*arguments)))):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_an_end_token_outside_what_a_step_asks_for_is_refused():
    with pytest.raises(ValueError, match="end token 9 is outside the rows 0 to 6"):
        words(0, ROWS, 9, 3)


def test_a_search_that_could_not_end_is_refused():
    trie = make_trie([[3], [3, 4]])
    vocabulary = Vocabulary(0, np.zeros(3, dtype=np.int64), (ROWS,) * 3)
    with pytest.raises(ValueError, match="end token"):
        search(TableSession(ROWS, 5, 0), trie, vocabulary, *pad([[1]]), (2,))
