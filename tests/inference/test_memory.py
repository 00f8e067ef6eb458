"""The arithmetic of memory: a bound on what the graphs hold, and batches that stay within it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genret_dask.inference.beam import search
from genret_dask.inference.memory import Decoding
from genret_dask.inference.score import score
from genret_dask.models.flops import Architecture
from tests.conftest import TinyModel

SIZES = st.integers(1, 64)


@st.composite
def decodings(draw) -> Decoding:
    heads, kv_heads = draw(st.sampled_from([(4, 4), (4, 2), (8, 1)]))
    levels = draw(st.integers(1, 5))
    block = draw(st.integers(1, 50))
    documents = draw(st.integers(1, 2000))
    architecture = Architecture(
        kind=draw(st.sampled_from(["encoder-decoder", "decoder"])),
        d_model=draw(SIZES),
        heads=heads,
        kv_heads=kv_heads,
        d_head=draw(SIZES),
        d_ff=draw(SIZES),
        gated=draw(st.booleans()),
        encoder_layers=1,
        decoder_layers=draw(st.integers(1, 4)),
        vocab_size=draw(st.integers(1, 40_000)),
    )
    return Decoding(
        architecture=architecture,
        graph=draw(st.sampled_from(["beam", "optimum"])),
        nodes=(*(min(block**level, documents) for level in range(levels)), documents),
        blocks=(block,) * levels,
        beams=tuple(sorted(draw(st.sets(st.integers(1, 200), min_size=1, max_size=5)))),
    )


PROMPTS, CANDIDATES = st.integers(1, 64), st.integers(1, 300)


@given(decodings(), PROMPTS, CANDIDATES, st.integers(-10, 10**10), st.integers(1, 64))
def test_a_split_stays_within_the_room_and_fills_it(decoding, prompt, candidates, room, most):
    queries, together = decoding.split(prompt, candidates, room, most)
    if queries == 0:
        assert together == 0 and decoding.query_bytes(prompt, 1) > room
        return
    assert 1 <= queries <= most and 1 <= together <= candidates
    assert queries * decoding.query_bytes(prompt, together) <= room
    if together < candidates:
        assert queries == 1 and decoding.query_bytes(prompt, together + 1) > room
    elif queries < most:
        assert (queries + 1) * decoding.query_bytes(prompt, candidates) > room


@given(decodings(), PROMPTS, CANDIDATES)
def test_more_takes_more(decoding, prompt, candidates):
    wider = replace(decoding, beams=(*decoding.beams, max(decoding.beams) + 1))
    assert decoding.search_bytes(prompt) <= decoding.search_bytes(prompt + 8)
    assert decoding.search_bytes(prompt) <= wider.search_bytes(prompt)
    for fewer, more in ((candidates, candidates + 1), (candidates, candidates + 50)):
        assert decoding.score_bytes(prompt, fewer) <= decoding.score_bytes(prompt, more)


class Watched:
    """A session that notes how wide its steps are and how much its states hold."""

    def __init__(self, tiny: TinyModel) -> None:
        self.manifest, self._session = tiny.session.manifest, tiny.session
        self.rows: list[int] = []
        self.held = 0

    def prefill(self, tokens, lengths):
        state = self._session.prefill(tokens, lengths)
        self.held = max(self.held, _bytes(state.prompt))
        return state

    def step(self, state, tokens, parents, rows):
        logits, partition, new = self._session.step(state, tokens, parents, rows)
        kept = _bytes(state.prompt) + _bytes(state.own) + _bytes(new.own)
        self.held = max(self.held, kept + logits.nbytes + partition.nbytes)
        self.rows.append(tokens.shape[1])
        return logits, partition, new


def _bytes(values) -> int:
    return sum(value.numpy().nbytes for value in values)


@pytest.mark.parametrize("beams", [(7,), (1, 2, 5, 10)])
def test_the_bound_holds_what_the_states_and_results_hold(tiny, beams):
    rng = np.random.default_rng(0)
    queries, width = 5, 16
    tokens, lengths = rng.integers(0, 40, (queries, width)), np.full(queries, width)
    documents = rng.integers(0, 60, (queries, 25)).astype(np.int32)
    nodes = (1, *map(len, tiny.codes.trie.codes))
    decoding = Decoding(
        tiny.session.manifest.architecture, "beam", nodes, tiny.codes.level_sizes, beams
    )

    watched = Watched(tiny)
    found = search(watched, tiny.codes.trie, tiny.vocabulary, tokens, lengths, beams)
    assert all(
        width <= min(sum(beams), reach) for width, reach in zip(watched.rows, nodes, strict=False)
    )
    names = ("token", "logit", "log_partition", "log_allowed")
    results = sum(getattr(found, name).nbytes for name in names)
    assert watched.held + results <= queries * decoding.search_bytes(width)
    results += found.score.nbytes + found.doc.nbytes
    assert results <= queries * decoding.result_bytes(1)

    watched = Watched(tiny)
    paths = tiny.codes.paths(documents)
    logits = score(watched, tiny.vocabulary, tokens, lengths, paths)
    assert watched.held + logits[0].nbytes * 2 <= queries * decoding.score_bytes(width, 25)
