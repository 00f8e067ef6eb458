"""Kinds of one length: what a plan says of them, and search that equals scoring everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.errors import SpecError
from genret_dask.identifiers import Codes, write_codes
from genret_dask.inference import resident
from genret_dask.inference.beam import search
from genret_dask.kinds import AtomicIdentifiers, CodesIdentifiers, NumbersIdentifiers
from genret_dask.specs import SweepSpec
from genret_dask.specs.validation import validate
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.places import bytes_below
from tests.conftest import TEXT_ROWS, make_collection, make_model, source_of
from tests.inference.test_beam import pad, torch_scores

DOCUMENTS = 23
KINDS = {
    "rq": ("t5", CodesIdentifiers(levels=2, codes=4)),
    "kmeans": ("llama", CodesIdentifiers(levels=3, codes=3, quantiser="kmeans")),
    "pq": ("t5", CodesIdentifiers(levels=2, codes=3, quantiser="pq")),
    "atomic": ("t5", AtomicIdentifiers()),
    "atomic of llama": ("llama", AtomicIdentifiers()),
    "numbers": ("llama", NumbersIdentifiers(base=3)),
    "random numbers": ("t5", NumbersIdentifiers(order="random")),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_beam_as_large_as_the_corpus_equals_scoring_everything(name, tmp_path):
    family, kind = KINDS[name]
    codes = Codes.of_cells(kind.cells(source_of(make_collection(DOCUMENTS))))
    assert kind.planned(DOCUMENTS).steps <= codes.length + 1
    tiny = make_model(family, codes, tmp_path)
    rng = np.random.default_rng(0)
    queries = [rng.integers(0, TEXT_ROWS, length).tolist() for length in (1, 5)]
    for engine in (search, resident.search):
        found = engine(tiny.session, codes.trie, tiny.vocabulary, *pad(queries), (2, DOCUMENTS))
        for row, query in enumerate(queries):
            expected = torch_scores(tiny, query)
            order = np.argsort(-expected, kind="stable")
            np.testing.assert_array_equal(found.doc[row, 1], order)
            np.testing.assert_allclose(found.score[row, 1], expected[order], atol=1e-4)


@pytest.mark.parametrize("kind", [AtomicIdentifiers(), NumbersIdentifiers()])
def test_identifiers_take_the_planned_bytes_and_rows(kind, tmp_path):
    collection = make_collection(3000)
    codes = Codes.of_cells(kind.cells(source_of(collection)))
    write_codes(codes, tmp_path / "codes", Origin(kind.kind, {}))
    planned = kind.making(collection, 300).bytes_kept
    assert planned / 1.3 <= bytes_below(tmp_path / "codes") <= planned * 1.3
    assert kind.planned(3000) == kind.shape(tmp_path / "codes")


# --- numbers --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.sampled_from([2, 3, 10, 16, 299, 65_536]), st.integers(0, 3))
def test_digits_are_those_of_the_number(documents, base, seed):
    source = source_of(make_collection(documents), seed)
    kind = NumbersIdentifiers(base=base)
    cells = kind.cells(source)
    places = [base**place for place in reversed(range(cells.shape[1]))]
    assert (cells @ places).tolist() == list(range(documents))
    assert list(Codes.of_cells(cells).level_sizes) == kind.planned_levels(documents)
    shuffled = NumbersIdentifiers(base=base, order="random").cells(source)
    assert sorted((shuffled @ places).tolist()) == list(range(documents))
    np.testing.assert_array_equal(
        shuffled, NumbersIdentifiers(base=base, order="random").cells(source)
    )


@pytest.mark.parametrize("base", [1, 65_537])
def test_a_base_that_is_none_is_refused(base):
    with pytest.raises(SpecError, match="base"):
        validate(SweepSpec, {"identifiers": {"kind": "numbers", "base": base}}, source="s.yaml")


# --- atomic ---------------------------------------------------------------------------------------


def test_a_document_is_a_token():
    kind = AtomicIdentifiers()
    codes = Codes.of_cells(kind.cells(source_of(make_collection(5))))
    assert codes.codes.tolist() == [[0], [1], [2], [3], [4]] and codes.level_sizes == (5,)
    assert codes.trie.depth == 1 and codes.trie.documents.tolist() == list(range(5))
    assert kind.planned(5).rows == 5 and kind.planned(5).steps == 1


def test_more_documents_than_a_vocabulary_should_hold_are_refused_with_their_memory():
    few, collection = AtomicIdentifiers(most_documents=4), make_collection(5)
    (said,) = few.refusals(collection)
    assert "5 documents are as many rows of every model's vocabulary" in said
    assert "10.00 kiB of weights" in said and "identifiers.most_documents allows 4" in said
    assert not list(AtomicIdentifiers().refusals(collection))
    assert few.settings() == AtomicIdentifiers().settings()
