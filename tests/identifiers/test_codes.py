"""Codes are unique, near documents share cells, and artefacts are refused when damaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genret_dask.errors import DatasetError, ModelError
from genret_dask.identifiers import Codes, read_codes, write_codes
from genret_dask.identifiers.embedding import SentenceEmbedding, TfidfEmbedding, embed
from genret_dask.identifiers.quantisers.rq import ResidualQuantiser
from genret_dask.identifiers.unique import make_unique
from genret_dask.identifiers.vectors import Vectors
from genret_dask.kinds import CodesIdentifiers
from genret_dask.storage.fingerprint import Origin
from tests.conftest import make_collection, source_of


@given(
    arrays(np.int32, st.tuples(st.integers(1, 40), st.integers(1, 3)), elements=st.integers(0, 2))
)
def test_make_unique_makes_rows_unique_and_keeps_the_cells(cells):
    codes = make_unique(cells)
    assert len(np.unique(codes, axis=0)) == len(cells)
    np.testing.assert_array_equal(codes[:, : cells.shape[1]], cells)
    if codes.shape[1] > cells.shape[1]:
        for row in np.unique(cells, axis=0):
            last = codes[(cells == row).all(axis=1), -1]
            assert sorted(last) == list(range(len(last)))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(1, 3), st.integers(0, 100))
def test_quantised_cells_are_in_range_and_spread(documents, codes, levels, seed):
    vectors = np.random.default_rng(seed).normal(size=(documents, 5)).astype(np.float32)
    cells = ResidualQuantiser().quantise(Vectors([vectors]), levels, min(codes, documents), seed)
    assert cells.min() >= 0 and cells.max() < codes
    _, counts = np.unique(cells, axis=0, return_counts=True)
    _, below = np.unique(cells[:, :-1], axis=0, return_counts=True)
    # Below one prefix the cells are filled evenly wherever two documents would have met.
    assert counts.max() <= -(-below.max() // min(codes, documents))


def test_first_level_puts_documents_of_a_cluster_together():
    centres = np.eye(4, dtype=np.float32) * 10
    rng = np.random.default_rng(0)
    vectors = np.repeat(centres, 10, axis=0) + rng.normal(size=(40, 4)).astype(np.float32) * 0.1
    cells = ResidualQuantiser().quantise(Vectors([vectors]), 2, 4, seed=0)[:, 0].reshape(4, 10)
    assert (cells == cells[:, :1]).all()
    assert len(np.unique(cells[:, 0])) == 4


def test_tokens_follow_the_order_of_codes():
    codes = Codes.of_cells(CodesIdentifiers(levels=2, codes=4).cells(source_of(make_collection())))
    assert codes.rows == sum(codes.level_sizes)
    np.testing.assert_array_equal(np.lexsort(codes.tokens.T[::-1]), np.lexsort(codes.codes.T[::-1]))
    assert codes.tokens.max() < codes.rows


def test_codes_are_deterministic():
    collection = make_collection()
    first, second = (
        Codes.of_cells(CodesIdentifiers().cells(source_of(collection, seed=3))) for _ in range(2)
    )
    np.testing.assert_array_equal(first.codes, second.codes)


def test_a_corpus_of_one_document_has_a_code(tmp_path):
    codes = Codes.of_cells(CodesIdentifiers().cells(source_of(make_collection(1))))
    assert codes.codes.shape[0] == 1
    assert codes.trie.documents.tolist() == [0]


def test_codes_survive_the_disk_and_refuse_damage(tmp_path):
    codes = Codes.of_cells(CodesIdentifiers().cells(source_of(make_collection())))
    write_codes(codes, tmp_path / "codes", Origin("codes", {}))
    again = read_codes(tmp_path / "codes")
    np.testing.assert_array_equal(again.codes, codes.codes)
    assert again.level_sizes == codes.level_sizes
    np.testing.assert_array_equal(again.trie.documents, codes.trie.documents)
    data = bytearray((tmp_path / "codes" / "codes.npy").read_bytes())
    data[-1] ^= 1
    (tmp_path / "codes" / "codes.npy").write_bytes(data)
    with pytest.raises(ModelError, match=r"codes\.npy"):
        read_codes(tmp_path / "codes")


def test_embeddings_are_unit_length():
    vectors = embed(make_collection(), TfidfEmbedding(dim=8))
    assert vectors.shape == (40, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_missing_embedder_is_named():
    with pytest.raises(ModelError, match="no-such-package"):
        embed(make_collection(), SentenceEmbedding(kind="sentence", package="no-such-package"))


def test_documents_without_words_are_named():
    from dataclasses import replace

    collection = replace(make_collection(2), texts=("!", "?"))
    with pytest.raises(DatasetError, match="no words"):
        embed(collection, TfidfEmbedding())
