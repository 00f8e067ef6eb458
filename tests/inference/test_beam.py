"""Search against brute force, against transformers' generate, and against itself."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.identifiers import Codes
from genret_dask.inference import resident
from genret_dask.inference.beam import Beams, search
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.score import score
from genret_dask.inference.session import BeamSession, open_session
from tests.conftest import FAMILIES, SMALL, TEXT_ROWS, TinyModel, make_model, random_codes
from tests.strategies import beam_sizes, token_texts

QUERIES = token_texts(TEXT_ROWS, documents=4, tokens=9)


def pad(queries: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(query) for query in queries])
    tokens = np.zeros((len(queries), lengths.max()), dtype=np.int64)
    for row, query in enumerate(queries):
        tokens[row, : len(query)] = query
    return tokens, lengths


def check_allowed(
    found: Beams,
    queries: Sequence[Sequence[int]],
    identifiers: Sequence[Sequence[int]],
    logits_of: Callable[[tuple[int, ...], tuple[int, ...]], np.ndarray],
) -> None:
    """Compare `log_allowed` with sums over the tokens that continue each prefix.

    Parameters
    ----------
    identifiers : sequence of sequence of int
        Vocabulary rows, an end token among them where there is one.
    logits_of : callable
        The whole vocabulary's logits behind a query and a prefix.
    """
    following: dict[tuple[int, ...], set[int]] = {}
    for identifier in identifiers:
        for length, token in enumerate(identifier):
            following.setdefault(tuple(identifier[:length]), set()).add(token)
    np.testing.assert_array_equal(np.isnan(found.log_allowed), found.token < 0)
    for place in np.ndindex(found.doc.shape):
        row = [int(token) for token in found.token[place] if token >= 0]
        for step in range(len(row)):
            logits = logits_of(tuple(queries[place[0]]), tuple(row[:step]))
            allowed = following[tuple(row[:step])]
            total = math.log(math.fsum(math.exp(logits[token]) for token in allowed))
            mine, logit = found.log_allowed[place][step], found.logit[place][step]
            assert mine == pytest.approx(total, abs=2e-5)
            assert mine <= found.log_partition[place][step] + 2e-5
            assert mine == logit if len(allowed) == 1 else mine >= logit


def torch_scores(tiny: TinyModel, query: list[int]) -> np.ndarray:
    """Log-probability of every identifier, by teacher forcing in PyTorch; [documents]."""
    labels = torch.from_numpy(tiny.codes.tokens + TEXT_ROWS + 1)
    inputs = torch.cat([torch.full((len(labels), 1), TEXT_ROWS), labels[:, :-1]], dim=1)
    prompt = torch.tensor([query]).expand(len(labels), -1)
    with torch.inference_mode():
        if tiny.hf.config.is_encoder_decoder:
            logits = tiny.hf(input_ids=prompt, decoder_input_ids=inputs).logits
        else:
            logits = tiny.hf(input_ids=torch.cat([prompt, inputs], dim=1)).logits[:, len(query) :]
    log_p = torch.log_softmax(logits.double(), -1).gather(-1, labels[..., None])[..., 0]
    return log_p.sum(-1).numpy()


@settings(max_examples=10, deadline=None)
@given(QUERIES)
def test_a_beam_as_large_as_the_corpus_equals_scoring_everything(tiny, queries):
    found = search(tiny.session, tiny.codes.trie, tiny.vocabulary, *pad(queries), beams=(60, 1000))
    assert (found.doc[:, 1, 60:] == -1).all() and np.isnan(found.score[:, 1, 60:]).all()
    for row, query in enumerate(queries):
        expected = torch_scores(tiny, query)
        order = np.argsort(-expected, kind="stable")
        for beam in (0, 1):
            np.testing.assert_array_equal(found.doc[row, beam, :60], order)
            np.testing.assert_allclose(found.score[row, beam, :60], expected[order], atol=1e-4)


@settings(max_examples=5, deadline=None)
@given(QUERIES, st.sets(st.integers(0, 59), min_size=1), beam_sizes(20))
def test_what_the_constraint_allows_is_summed_up(tiny, queries, documents, beams):
    codes = Codes(tiny.codes.codes[sorted(documents)], tiny.codes.level_sizes)

    def logits_of(query: tuple[int, ...], prefix: tuple[int, ...]) -> np.ndarray:
        own = torch.tensor([[TEXT_ROWS, *prefix]])
        prompt = torch.tensor([query])
        with torch.inference_mode():
            if tiny.hf.config.is_encoder_decoder:
                logits = tiny.hf(input_ids=prompt, decoder_input_ids=own).logits
            else:
                logits = tiny.hf(input_ids=torch.cat([prompt, own], dim=1)).logits
        return logits[0, -1].double().numpy()

    labels = (codes.tokens + TEXT_ROWS + 1).tolist()
    for engine in (search, resident.search):
        found = engine(tiny.session, codes.trie, tiny.vocabulary, *pad(queries[:1]), beams)
        check_allowed(found, queries, labels, cache(logits_of))


def generated(tiny: TinyModel, query: list[int], beam: int) -> tuple[list[int], np.ndarray]:
    """Documents and scores that transformers' own constrained search finds."""
    labels = tiny.codes.tokens + TEXT_ROWS + 1
    following: dict[tuple[int, ...], set[int]] = {}
    for identifier in labels.tolist():
        for level, token in enumerate(identifier):
            following.setdefault(tuple(identifier[:level]), set()).add(token)
    rows = {tuple(identifier): row for row, identifier in enumerate(labels.tolist())}
    opening, prompt = len(query) + 1, [*query, TEXT_ROWS]
    if tiny.hf.config.is_encoder_decoder:
        opening, prompt = 1, query
    out = tiny.hf.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=beam,
        num_return_sequences=beam,
        max_new_tokens=tiny.codes.length,
        do_sample=False,
        length_penalty=0.0,
        eos_token_id=None,
        pad_token_id=0,
        prefix_allowed_tokens_fn=lambda _, ids: (
            sorted(following[tuple(ids.tolist()[opening:])])
            if tuple(ids.tolist()[opening:]) in following
            else [0]
        ),
        output_scores=True,
        return_dict_in_generate=True,
    )
    scores = out.sequences_scores.numpy()
    documents = [rows.get(tuple(ids[opening:])) for ids in out.sequences.tolist()]
    kept = scores > -1e8  # its beams without a prefix of their own start at -1e9
    return [d for d, keep in zip(documents, kept, strict=True) if keep], scores[kept]


@settings(max_examples=8, deadline=None)
@given(QUERIES, st.sampled_from([2, 3, 5, 12, 25]))
def test_smaller_beams_equal_transformers_generate(tiny, queries, beam):
    found = search(tiny.session, tiny.codes.trie, tiny.vocabulary, *pad(queries), beams=(beam,))
    for row, query in enumerate(queries):
        documents, scores = generated(tiny, query, beam)
        assert found.doc[row, 0, : len(scores)].tolist() == documents
        np.testing.assert_allclose(found.score[row, 0, : len(scores)], scores, atol=1e-4)


@settings(max_examples=6, deadline=None)
@given(
    QUERIES,
    st.sets(st.integers(0, 59), min_size=1),
    st.lists(st.integers(2, 15), min_size=1, max_size=3, unique=True),
)
def test_any_trie_and_grid_equal_transformers_generate(tiny, queries, documents, beams):
    codes = Codes(tiny.codes.codes[sorted(documents)], tiny.codes.level_sizes)
    found = search(tiny.session, codes.trie, tiny.vocabulary, *pad(queries), beams)
    for row, query in enumerate(queries):
        for place, beam in enumerate(beams):
            expected, scores = generated(replace(tiny, codes=codes), query, beam)
            assert found.doc[row, place, : len(scores)].tolist() == expected
            assert (found.doc[row, place, len(scores) :] == -1).all()
            np.testing.assert_allclose(found.score[row, place, : len(scores)], scores, atol=1e-4)


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize(
    ("documents", "sizes", "seed"), [(25, (2, 2, 2, 2), 1), (12, (14,), 2), (40, (3, 1, 7), 3)]
)
def test_random_models_and_tries(family, documents, sizes, seed, tmp_path):
    codes = random_codes(documents, sizes, seed)
    model = make_model(family, codes, tmp_path, seed)
    rng = np.random.default_rng(seed)
    queries = [rng.integers(0, TEXT_ROWS, length).tolist() for length in (1, 4, 8)]
    beams = (2, 7, documents)
    engines = (search, resident.search) if isinstance(model.session, BeamSession) else (search,)
    for engine in engines:
        found = engine(model.session, codes.trie, model.vocabulary, *pad(queries), beams)
        for row, query in enumerate(queries):
            for place, beam in enumerate(beams[:2]):
                expected, scores = generated(model, query, beam)
                assert found.doc[row, place, : len(scores)].tolist() == expected
                np.testing.assert_allclose(
                    found.score[row, place, : len(scores)], scores, atol=1e-4
                )
            order = np.argsort(-torch_scores(model, query), kind="stable")
            assert found.doc[row, 2].tolist() == order.tolist()


class TableSession:
    """Logits drawn by a hash of query and prefix, from few values so that ties are common."""

    def __init__(self, rows: int, values: int, seed: int) -> None:
        self.rows, self.values, self.seed = rows, values, seed

    def prefill(self, tokens, lengths):
        queries = [
            tuple(query[:length]) for query, length in zip(tokens.tolist(), lengths, strict=True)
        ]
        return queries, [[()] for _ in queries]

    def step(self, state, tokens, parents, rows):
        queries, prefixes = state
        grown = [
            [(*prefixes[q][p], t) for p, t in zip(parents[q], tokens[q].tolist(), strict=True)]
            for q in range(len(queries))
        ]
        logits = np.array(
            [
                [self._logits(query, prefix) for prefix in grown[q]]
                for q, query in enumerate(queries)
            ]
        )
        partition = np.log(np.exp(logits).sum(-1)).astype(np.float32)
        return logits[..., slice(*rows)].astype(np.float32), partition, (queries, grown)

    def logits_behind(self, query, prefix):
        return self._logits(query, (0, *prefix)).astype(np.float32)

    def _logits(self, query, prefix):
        rng = np.random.default_rng((self.seed, *query, 999, *prefix))
        return rng.integers(0, self.values, self.rows).astype(np.float64)


@settings(max_examples=40, deadline=None)
@given(
    documents=st.integers(1, 50),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    beams=beam_sizes(60),
    queries=st.integers(1, 3),
    values=st.sampled_from([1, 2, 50]),
    seed=st.integers(0, 99),
)
def test_the_grid_equals_plain_separate_searches(documents, sizes, beams, queries, values, seed):
    codes = random_codes(documents, tuple(sizes), seed)
    session = TableSession(codes.rows + 1, values, seed)
    vocabulary = Vocabulary(0, codes.block_starts + 1, codes.level_sizes)
    tokens, lengths = pad([[q + 1, seed] for q in range(queries)])
    found = search(session, codes.trie, vocabulary, tokens, lengths, beams)
    labels = [tuple(row) for row in (codes.tokens + 1).tolist()]
    for q in range(queries):
        query = tuple(tokens[q].tolist())
        for place, beam in enumerate(beams):
            kept, decoded = [((), 0.0)], 0
            for level in range(codes.length):
                decoded += len(kept)
                children = []
                for prefix, total in kept:
                    logits = session._logits(query, (0, *prefix)).astype(np.float32)
                    partition = np.float32(np.log(np.exp(logits.astype(float)).sum()))
                    for token in sorted({i[level] for i in labels if i[:level] == prefix}):
                        gain = np.float64(logits[token]) - partition
                        children.append(((*prefix, token), total + gain))
                kept = sorted(children, key=lambda child: (-child[1], child[0]))[:beam]
            size = len(kept)
            assert [labels[d] for d in found.doc[q, place, :size]] == [p for p, _ in kept]
            assert (found.doc[q, place, size:] == -1).all()
            assert found.rows_decoded[q, place].sum() == decoded
            np.testing.assert_allclose(
                found.score[q, place, :size], [s for _, s in kept], atol=1e-5
            )
            np.testing.assert_array_equal(found.token[q, place, :size], [p for p, _ in kept])
    check_allowed(found, tokens.tolist(), labels, session.logits_behind)


@settings(max_examples=10, deadline=None)
@given(QUERIES, st.data())
def test_scores_equal_teacher_forcing(tiny, queries, data):
    documents = np.array(
        [
            data.draw(st.lists(st.integers(-1, 59), min_size=5, max_size=5, unique=True))
            for _ in queries
        ],
        dtype=np.int32,
    )
    logit, partition = score(
        tiny.session, tiny.vocabulary, *pad(queries), tiny.codes.paths(documents)
    )
    for row, query in enumerate(queries):
        expected = torch_scores(tiny, query)
        for place, document in enumerate(documents[row]):
            total = (logit - partition)[row, place].sum()
            if document < 0:
                assert np.isnan(total)
            else:
                assert total == pytest.approx(expected[document], abs=1e-4)


def test_a_document_scores_what_the_search_gave_it(tiny):
    tokens, lengths = pad([[1, 2, 3], [7, 8]])
    found = search(tiny.session, tiny.codes.trie, tiny.vocabulary, tokens, lengths, (7,))
    logit, partition = score(
        tiny.session, tiny.vocabulary, tokens, lengths, tiny.codes.paths(found.doc[:, 0])
    )
    np.testing.assert_allclose(logit, found.logit[:, 0], atol=1e-5)
    np.testing.assert_allclose(partition, found.log_partition[:, 0], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(QUERIES, beam_sizes(80))
def test_the_resident_search_equals_the_one_on_the_host(tiny, queries, beams):
    arguments = (tiny.session, tiny.codes.trie, tiny.vocabulary, *pad(queries), beams)
    expected, found = search(*arguments), resident.search(*arguments)
    for name in ("token", "doc", "rows_decoded"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("logit", "log_partition", "log_allowed", "score"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-5)


def test_an_older_export_is_searched_by_the_host(tiny, tmp_path, caplog):
    folder = tmp_path / "model"
    shutil.copytree(tiny.folder, folder)
    graph = onnx.load(folder / "select.onnx")
    (allowed,) = [value for value in graph.graph.output if value.name == "allowed"]
    graph.graph.output.remove(allowed)
    onnx.save(graph, folder / "select.onnx")
    session = BeamSession(folder, tiny.session.manifest, "cpu", 1)
    arguments = tiny.codes.trie, tiny.vocabulary, *pad([[1, 2], [3]]), (2, 5)
    expected = search(session, *arguments)
    with caplog.at_level(logging.WARNING):
        results = [resident.search(session, *arguments) for _ in range(2)]
    for found in results:
        for name, values in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), values)
    assert caplog.text.count("exported by an earlier version") == 1


@pytest.mark.parametrize("engine", [search, resident.search])
@pytest.mark.parametrize("family", FAMILIES)
def test_ties_go_to_the_smaller_identifier(family, engine, tmp_path):
    codes = random_codes(40, (3, 3, 2), seed=2)
    level = make_model(family, codes, tmp_path, head=0.0)
    found = engine(level.session, codes.trie, level.vocabulary, *pad([[1, 2], [3]]), (1, 4, 7, 40))
    for place, beam in enumerate((1, 4, 7, 40)):
        prefixes = np.empty((1, 0), dtype=np.int64)
        for step in range(codes.length):
            below = [row for row in codes.codes.tolist() if row[:step] in prefixes.tolist()]
            prefixes = np.unique(np.array(below)[:, : step + 1], axis=0)[:beam]
        expected = [codes.codes.tolist().index(row) for row in prefixes.tolist()]
        for query in range(2):
            assert found.doc[query, place, : len(expected)].tolist() == expected


@pytest.mark.parametrize("engine", [search, resident.search])
def test_identifiers_that_share_all_but_the_last_code(tiny, engine):
    rows = np.zeros((9, tiny.codes.length), dtype=np.int32)
    rows[:, -1] = np.arange(9) % tiny.codes.level_sizes[-1]
    rows[:, -2] = np.arange(9) // tiny.codes.level_sizes[-1]
    shared = Codes(np.unique(rows, axis=0), tiny.codes.level_sizes)
    found = engine(tiny.session, shared.trie, tiny.vocabulary, *pad([[4, 2]]), (2, 20))
    expected = torch_scores(replace(tiny, codes=shared), [4, 2])
    order = np.argsort(-expected, kind="stable")
    assert found.doc[0, 1, : len(order)].tolist() == order.tolist()
    assert (found.doc[0, 1, len(order) :] == -1).all()


@pytest.mark.parametrize("engine", [search, resident.search])
def test_a_single_document_is_found_by_every_beam(tiny, engine):
    alone = Codes(tiny.codes.codes[:1], tiny.codes.level_sizes)
    found = engine(tiny.session, alone.trie, tiny.vocabulary, *pad([[4, 2], [5]]), (1, 3))
    assert found.doc.tolist() == [[[0], [0]]] * 2
    assert (found.rows_decoded == 1).all()


@settings(max_examples=8, deadline=None)
@given(QUERIES)
def test_batch_mates_change_nothing(tiny, queries):
    tokens, lengths = pad(queries)
    together = search(tiny.session, tiny.codes.trie, tiny.vocabulary, tokens, lengths, (3, 10))
    for row in range(len(queries)):
        alone = search(
            tiny.session,
            tiny.codes.trie,
            tiny.vocabulary,
            tokens[row : row + 1, : lengths[row]],
            lengths[row : row + 1],
            (3, 10),
        )
        np.testing.assert_array_equal(alone.doc[0], together.doc[row])
        np.testing.assert_allclose(alone.score[0], together.score[row], atol=1e-5)


def test_a_union_larger_than_its_rows_is_searched_again(tiny, monkeypatch):
    arguments = (tiny.session, tiny.codes.trie, tiny.vocabulary, *pad([[1, 2], [8]]), (2, 5, 9))
    expected = search(*arguments)
    monkeypatch.setattr(resident, "_SLACK", 0.3)
    np.testing.assert_array_equal(resident.search(*arguments).doc, expected.doc)


@pytest.mark.gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="no CUDA provider"
)
def test_the_search_on_a_gpu_equals_the_one_on_the_cpu(tiny):
    session = open_session(tiny.folder, "cuda")
    assert resident.searcher(session) is resident.search
    arguments = (tiny.codes.trie, tiny.vocabulary, *pad([[1, 2, 3], [9]]), (1, 5, 20))
    found, expected = resident.search(session, *arguments), search(tiny.session, *arguments)
    np.testing.assert_array_equal(found.doc, expected.doc)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-4)
