"""Codes of many documents: embedded by ranges, quantised from mapped parts."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genret_dask.datasets import stored
from genret_dask.errors import NumericError
from genret_dask.executors.dask import DaskExecutor
from genret_dask.executors.serial import SerialExecutor
from genret_dask.identifiers import codes, embed_task, vectors
from genret_dask.identifiers.codes import build_cells, crowded
from genret_dask.identifiers.quantisers.rq import ResidualQuantiser
from genret_dask.identifiers.tfidf import Tfidf
from genret_dask.identifiers.unique import in_order
from genret_dask.identifiers.vectors import Vectors
from genret_dask.kinds import CodesIdentifiers, Source
from genret_dask.storage.artefacts import Artefact, publishing
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.layout import TEXTS
from tests.conftest import make_collection

KIND = CodesIdentifiers(levels=2, codes=4)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The artefact of a collection of 70 documents."""
    folder = tmp_path_factory.mktemp("many") / "collection"
    with publishing(folder, Origin("collection", {})) as partial:
        stored.write(make_collection(70), partial / TEXTS)
    return folder


@dataclass
class Made:
    """Where codes are made, and what was done for it."""

    place: Path
    folder: Path
    executor: object = field(default_factory=SerialExecutor)
    ran: list[str] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)

    def source(self) -> Source:
        return Source(
            collection=stored.read_artefact(self.place),
            place=self.place,
            tokenizer=None,
            working=self.folder / "working",
            seed=3,
            report=lambda stage, done, total: self.reported.append(stage),
            map=self._map,
        )

    def _map(self, stage, function, tasks, names, cost):
        self.ran += names
        return self.executor.map(function, tasks, names, cost=cost)

    def cells(self) -> np.ndarray:
        return KIND.cells(self.source())

    def parts(self) -> list[bytes]:
        paths = sorted((self.folder / "working").glob("*/*-*/vectors.npy"))
        return [path.read_bytes() for path in paths]


@pytest.fixture
def few(monkeypatch):
    """Make the collection one of many documents."""
    monkeypatch.setattr(embed_task, "SAMPLE", 30)
    monkeypatch.setattr(embed_task, "RANGE", 16)


def test_ranges_of_any_size_give_the_same_vectors_and_codes(place, tmp_path, few, monkeypatch):
    found = []
    for size, block in ((1, 70), (7, 3), (16, 64), (69, 40), (1000, 1000)):
        monkeypatch.setattr(embed_task, "RANGE", size)
        monkeypatch.setattr(vectors, "BLOCK", max(block, 40))
        made = Made(place, tmp_path / str(size))
        parts = KIND._vectors(made.source())
        assert len(parts.parts) == len(made.ran) == -(-70 // size)
        assert all(part.dtype == np.float32 for part in parts.parts)
        found.append((parts.take(np.arange(70)), made.cells()))
    for rows, cells in found[1:]:
        np.testing.assert_array_equal(rows, found[0][0])
        np.testing.assert_array_equal(cells, found[0][1])
    np.testing.assert_allclose(np.linalg.norm(found[0][0], axis=1), 1, atol=1e-5)


def test_a_cluster_writes_the_same_bytes(place, tmp_path, few):
    serial = Made(place, tmp_path / "serial")
    expected = serial.cells()
    # Its workers import the package anew, without `few`: all that a task needs stands in it.
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        made = Made(place, tmp_path / "dask", DaskExecutor(client))
        np.testing.assert_array_equal(made.cells(), expected)
    assert len(serial.parts()) == 5 and made.parts() == serial.parts()


def test_a_build_that_broke_off_goes_on(place, tmp_path, few, monkeypatch):
    expected = Made(place, tmp_path / "whole").cells()

    class Broken(SerialExecutor):
        def map(self, function, tasks, keys, **options):
            super().map(function, tasks[:2], keys[:2], **options)
            raise KeyboardInterrupt

    made = Made(place, tmp_path / "broken", Broken())
    with pytest.raises(KeyboardInterrupt):
        made.cells()
    fitted = []
    monkeypatch.setattr(Tfidf, "fit", lambda *arguments: fitted.append(arguments))
    again = Made(place, tmp_path / "broken")
    np.testing.assert_array_equal(again.cells(), expected)
    assert again.ran == [f"embedding.codes.tfidf-{first:08d}" for first in (32, 48, 64)]
    once_more = Made(place, tmp_path / "broken")
    np.testing.assert_array_equal(once_more.cells(), expected)
    assert fitted == once_more.ran == once_more.reported == []


def test_parts_go_when_the_codes_are_there(place, tmp_path, few):
    made = Made(place, tmp_path / "codes")
    KIND.build(Artefact(made.folder, Origin("codes", {})), made.source())
    assert made.ran and not (made.folder / "working").exists()
    assert made.reported[0] == made.reported[-1] == "identifiers"
    assert len(KIND.open(made.folder).codes) == 70


def test_a_collection_of_the_sample_is_embedded_at_once(place, tmp_path, few, monkeypatch):
    monkeypatch.setattr(embed_task, "SAMPLE", 70)
    made = Made(place, tmp_path / "codes")
    made.cells()
    assert made.ran == [] and not made.folder.exists()


def test_what_was_fitted_gives_its_texts_their_vectors(tmp_path):
    texts = [*make_collection(60).documents(), "", "wordless 9", "w1 w1 naïve 冰岛的火山"]
    texts = [f"{text} the" if row % 3 else "the" for row, text in enumerate(texts)]
    fitted, expected = Tfidf.fit(texts, 16, 0)
    fitted.save(tmp_path / "tfidf.npz")
    again = Tfidf.load(tmp_path / "tfidf.npz")
    assert again.words == fitted.words and "冰岛" in again.words
    np.testing.assert_allclose(again.transform(texts), expected, atol=1e-5)
    assert again.common[again.words.index("the")]
    assert not again.transform(["unheard of", ""]).any()


def test_a_single_word_is_its_own_direction(tmp_path):
    fitted, expected = Tfidf.fit(["one", "one one"], 8, 0)
    np.testing.assert_allclose(fitted.transform(["one", "two"]), [expected[0], [0]])


def test_an_embedder_of_transformers_goes_by_ranges_too(place, tmp_path, few, monkeypatch):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(200))]
    words = models.WordPiece({one: row for row, one in enumerate(pieces)}, unk_token="[UNK]")
    reader = Tokenizer(words)
    reader.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(tokenizer_object=reader, pad_token="[PAD]").save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = BertConfig(vocab_size=len(pieces), intermediate_size=8, **sizes)
    BertModel(config).save_pretrained(tmp_path)
    kind = CodesIdentifiers(embedding={"kind": "sentence", "path": tmp_path})

    made = Made(place, tmp_path / "codes")
    found = kind._vectors(made.source()).take(np.arange(70))
    assert len(made.ran) == 5 and made.ran[1] == "embedding.codes.sentence-00000016"
    monkeypatch.setattr(embed_task, "SAMPLE", 70)
    whole = kind._vectors(made.source()).take(np.arange(70))
    np.testing.assert_allclose(found, whole, atol=1e-6)  # batches differ, so the last bits may


# --- quantisation ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(1, 50), st.randoms(use_true_random=False))
def test_rows_of_parts_are_those_of_the_whole(number, size, random):
    whole = np.random.default_rng(0).normal(size=(number, 3)).astype(np.float32)
    parts = Vectors([whole[first : first + size] for first in range(0, number, size)])
    rows = np.array([random.randrange(number) for _ in range(20)])
    np.testing.assert_array_equal(parts.take(rows), whole[rows])
    assert len(parts) == number and parts.dim == 3


def test_k_means_is_trained_as_faiss_trains_it_with_all_vectors():
    import faiss

    whole = np.random.default_rng(0).normal(size=(5000, 6)).astype(np.float32)
    kmeans = faiss.Kmeans(6, 8, niter=25, seed=12, min_points_per_centroid=1)
    kmeans.train(whole)
    expected = kmeans.index.search(whole, 1)[1][:, 0]
    found = ResidualQuantiser().quantise(Vectors(np.array_split(whole, 7)), 2, 8, seed=11)
    np.testing.assert_array_equal(found[:, 0], expected)


def test_an_embedding_that_is_not_finite_is_named(monkeypatch):
    monkeypatch.setattr(vectors, "BLOCK", 4)
    whole = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    whole[[5, 9], 1] = np.nan
    names = [f"d{row}" for row in range(10)]
    with pytest.raises(NumericError, match="2 documents are not finite, the first that of d5"):
        build_cells(Vectors([whole]), names, 1, 2)


@settings(deadline=None)
@given(
    arrays(
        np.int32,
        st.tuples(st.integers(1, 40), st.integers(1, 6)),
        elements=st.sampled_from([0, 1, 2, 2**20, 2**31 - 2]),
    )
)
def test_numbers_of_rows_are_ordered_as_the_rows(cells):
    order, keys = in_order(cells)
    np.testing.assert_array_equal(order, np.lexsort(cells.T[::-1]))
    ordered = cells[order]
    np.testing.assert_array_equal(np.diff(keys) > 0, (ordered[1:] != ordered[:-1]).any(axis=1))
    prefixes = keys // (int(cells[:, -1].max()) + 1)
    differ = (ordered[1:, :-1] != ordered[:-1, :-1]).any(axis=1)
    np.testing.assert_array_equal(np.diff(prefixes) > 0, differ)


@pytest.mark.parametrize(
    ("documents", "levels", "codes", "fix"),
    [
        (21_000_000, 3, 32, "set levels to 4 or codes to 103,"),
        (5000, 1, 8, "set levels to 2,"),
        (2_048_001, 3, 32, "set levels to 4 or codes to 33,"),
    ],
)
def test_crowded_levels_are_told_with_what_suits(documents, levels, codes, fix):
    assert fix in (crowded(documents, levels, codes) or "")


def test_levels_that_suit_are_not_told_of(place, tmp_path, monkeypatch, caplog):
    assert crowded(2_048_000, 3, 32) is None
    made = Made(place, tmp_path / "codes")
    with caplog.at_level(logging.WARNING):
        made.cells()
        assert "told apart by the last level" not in caplog.text
        monkeypatch.setattr(codes, "CROWD", 10)
        made.cells()
    assert "leave 18 of 70 documents" in caplog.text and "levels to 3 or codes to 7" in caplog.text
