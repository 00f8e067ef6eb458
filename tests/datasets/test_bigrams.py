"""Passages drawn after another collection."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from genret_dask.datasets import BigramsDataset
from genret_dask.errors import DatasetError
from tests.conftest import make_collection, write_beir


@pytest.fixture(scope="module")
def beir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bigrams") / "beir"
    write_beir(make_collection(), folder)
    return folder


def drawn(path, **settings):
    return BigramsDataset(path=path, **{"documents": 2000, "queries": 100, **settings}).load()


@pytest.fixture(scope="module")
def collection(beir):
    return drawn(beir)


def test_each_word_follows_the_last_as_it_does_in_the_folder(beir, collection):
    source = [word for text in make_collection().documents() for word in text.split()]
    follow = {*pairwise(source), (source[-1], source[0])}
    for text in collection.texts[:200]:
        words = text.split(" ")
        assert len(words) == 100
        own = [word.startswith("unique") for word in words]
        seen = [
            pair for pair, new in zip(pairwise(words), pairwise(own), strict=True) if not any(new)
        ]
        assert {*seen} <= follow


def test_a_passage_depends_on_its_number_and_the_seed_alone(beir, collection):
    assert list(drawn(beir, documents=500).texts) == list(collection.texts[:500])
    assert list(drawn(beir, documents=500, seed=1).texts) != list(collection.texts[:500])


def test_one_in_a_hundred_is_anothers_and_one_in_ten_has_a_word_of_its_own(collection):
    texts = list(collection.texts)
    assert len(texts) - len({*texts}) == 20
    words = [word for text in {*texts} for word in text.split() if word.startswith("unique")]
    assert len(words) == len({*words}) == 200


def test_a_query_is_some_words_of_its_passage_in_their_order(collection):
    sizes = {}
    for split, qrels in collection.qrels.items():
        sizes[split] = len(qrels)
        for query, document in zip(qrels.query, qrels.document, strict=True):
            rest = iter(collection.texts[int(document)].split(" "))
            asked = collection.queries[int(query)].split(" ")
            assert len(asked) == 8 and all(word in rest for word in asked)
    assert sizes == {"train": 70, "dev": 10, "test": 20}
    documents = np.concatenate([qrels.document for qrels in collection.qrels.values()])
    assert len(np.unique(documents)) == 100


def test_short_passages_and_more_queries_than_passages_will_do(beir):
    small = drawn(beir, documents=3, words=2, queries=10)
    assert len(small) == 3 and len(small.queries) == 10
    assert all(len(query.split(" ")) == 2 for query in small.queries)


def test_the_fingerprint_tells_the_words_from_the_place(beir, tmp_path):
    (tmp_path / "copy").symlink_to(beir)
    one = BigramsDataset(path=beir)
    assert BigramsDataset(path=tmp_path / "copy").fingerprint() == one.fingerprint()
    assert BigramsDataset(path=beir, seed=1).fingerprint() != one.fingerprint()


def test_a_folder_without_words_is_refused(tmp_path):
    write_beir(make_collection(), tmp_path / "blank")
    path = tmp_path / "blank" / "corpus.jsonl"
    path.write_text("".join(f'{{"_id": "d{row}", "text": " "}}\n' for row in range(40)))
    for qrels in (tmp_path / "blank" / "qrels").iterdir():
        qrels.write_text("")
    with pytest.raises(DatasetError, match="no words"):
        drawn(tmp_path / "blank")
