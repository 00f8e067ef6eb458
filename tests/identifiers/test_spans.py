"""Sampled spans: of the document, like the query, and the same whoever asks when."""

from __future__ import annotations

import numpy as np
import pytest
from rapidfuzz import fuzz

from genret_dask.datasets import stored
from genret_dask.datasets.words import one_line, words
from genret_dask.identifiers import index_task
from genret_dask.identifiers.index_task import IndexTask, plan_parts, run_index
from genret_dask.identifiers.ngrams import close, index_of_parts, open_parts
from genret_dask.identifiers.spans import SpanSampler
from genret_dask.kinds import NgramsIdentifiers
from genret_dask.models.reader import Reader
from genret_dask.specs import TokenizerSpec
from genret_dask.storage import layout
from genret_dask.storage.artefacts import publishing
from genret_dask.storage.fingerprint import Origin
from genret_dask.training.tokenizer import save_tokenizer, train_tokenizer
from tests.conftest import make_collection

TEXTS = (
    "Chlorophyll absorbs light; oxygen is evolved by green plants, algae and some bacteria.",
    "two words",
    "  ",
    "naïve\u200b café — x²  literal </s> marks\tand tabs  and several other plain words here",
)
ORIGIN = Origin("test", {})
IDS = tuple(f"d{row}" for row in range(len(TEXTS)))


def sampler_of(texts, ids, reader, spec: NgramsIdentifiers) -> SpanSampler:
    names = {"spans", "span_words", "min_tokens", "max_tokens", "temperature"}
    return SpanSampler(texts, ids, reader, 0, **spec.model_dump(include=names))


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Reader:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(make_collection(), TokenizerSpec(vocab_size=400)), folder)
    return Reader.at(folder / "tokenizer.json")


def sampler(reader: Reader, **changes) -> SpanSampler:
    fields = {"min_tokens": 3, "max_tokens": 12, "span_words": 4, "spans": 6, **changes}
    return sampler_of(TEXTS, IDS, reader, NgramsIdentifiers(**fields))


def test_a_sample_depends_on_query_and_document_alone(reader):
    first, second = sampler(reader), sampler(reader)
    forwards = [first.sample(query, row) for query in ("green plants", "tabs") for row in (0, 3)]
    backwards = [second.sample(query, row) for query in ("tabs", "green plants") for row in (3, 0)]
    for one, other in zip(forwards, backwards[::-1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(forwards[0], forwards[2])


@pytest.mark.parametrize("document", [0, 3])
def test_spans_begin_with_a_word_and_have_so_many(reader, document):
    spans = sampler(reader, spans=200, max_tokens=1024).sample("", document)
    line, tokenizer = one_line(TEXTS[document]), reader.tokenizer
    ((ids,),) = reader.bare([line])
    assert "</s>" not in [tokenizer.id_to_token(one) for one in ids]
    pieces = {tokenizer.decode(ids[start:stop]).strip() for start, stop in spans}
    places = words(line)
    runs = [places[at : at + 4] for at in range(len(places))]
    plain = [line[run[0][0] : run[-1][1]] for run in runs]
    assert pieces <= {tokenizer.normalizer.normalize_str(text).strip() for text in plain}
    assert len(pieces) > 5
    cut = sampler(reader, spans=200).sample("", document)
    assert ((cut[:, 1] - cut[:, 0] <= 12) & (cut[:, 1] - cut[:, 0] >= 3)).all()


def test_a_text_that_is_too_short_has_none(reader):
    assert (sampler(reader).sample("words", 2) == -1).all()
    assert (sampler(reader, min_tokens=12).sample("words", 1) == -1).all()
    assert (sampler(reader, min_tokens=1).sample("words", 1) >= 0).all()


def test_places_are_drawn_by_the_softmax_of_their_overlap(reader):
    query, size = "oxygen evolved by plants", 40_000
    many = sampler(reader, spans=size, min_tokens=1)
    starts, counts = np.unique(many.sample(query, 0)[:, 0], return_counts=True)
    asked, low = query.split(), TEXTS[0].lower()
    spelled = [low[start:stop] for start, stop in words(low)]
    weights = [
        sum(
            fuzz.ratio(" ".join(asked[at : at + 3]), " ".join(spelled[place : place + 3])) / 100
            for at in range(len(asked) - 2)
        )
        for place in range(len(spelled))
    ]
    chance = np.exp(weights) / np.exp(weights).sum()
    assert len(starts) == len(spelled)
    np.testing.assert_allclose(counts / size, chance, atol=5 * np.sqrt(0.25 / size))
    assert chance.max() > 2 * chance.min()


def test_a_part_is_an_eighth_of_the_text_within_bounds(monkeypatch):
    collection = make_collection()
    total = int(collection.texts.lengths.sum())
    assert plan_parts(collection) == [(0, len(collection))]
    for least, most, parts in ((1, 10**9, 8), (1, total // 20, 20), (total // 3, 10**9, 3)):
        monkeypatch.setattr(index_task, "PART", (least, most))
        ranges = plan_parts(collection)
        assert abs(len(ranges) - parts) <= 1
        assert [first for first, _ in ranges[1:]] == [last for _, last in ranges[:-1]]
        assert (ranges[0][0], ranges[-1][1]) == (0, len(collection))


def test_spans_are_in_the_index_whatever_its_parts(reader, tmp_path):
    collection = make_collection()
    with publishing(tmp_path / "collection", ORIGIN) as folder:
        stored.write(collection, folder / layout.TEXTS)
    with publishing(tmp_path / "tokenizer", ORIGIN) as folder:
        (folder / "tokenizer.json").write_text(reader.tokenizer.to_str())
    spec = NgramsIdentifiers(part_characters=1000)
    vocabulary, indexes = reader.vocabulary, {}
    for name, characters in (("whole", 10**9), ("parts", 1000)):
        ranges = plan_parts(collection, characters)
        for number, (first, last) in enumerate(ranges):
            run_index(
                IndexTask(
                    name=str(number),
                    collection=tmp_path / "collection",
                    first=first,
                    last=last,
                    titles=False,
                    tokenizer=tmp_path / "tokenizer",
                    folder=tmp_path / name / str(number),
                    vocabulary=vocabulary,
                    least=1,
                    made_from=ORIGIN,
                ),
                lambda share: None,
            )
        parts = open_parts(tmp_path / name, [str(number) for number in range(len(ranges))])
        indexes[name] = index_of_parts(parts, vocabulary, "", "")
    whole, parts = indexes.values()
    assert len(whole.parts) == 1 and len(parts.parts) > 4 and whole.tokens == parts.tokens
    sample = sampler_of(collection.texts, collection.document_ids, reader, spec).sample
    documents = np.arange(len(collection))
    spans = np.stack([sample(collection.queries[row], row)[0] for row in documents])
    tokens = whole.spans(documents, spans, 10)
    np.testing.assert_array_equal(tokens, parts.spans(documents, spans, 10))
    states = [index.root(len(documents)) for index in (whole, parts)]
    for depth in range(10):
        going = np.flatnonzero(tokens[:, depth] >= 0)
        for index, state in zip((whole, parts), states, strict=True):
            state[going] = index.refine(state[going], depth, tokens[going, depth])
    assert (whole.count(states[0]) > 0).all()
    np.testing.assert_array_equal(whole.count(states[0]), parts.count(states[1]))
    found = [
        set(zip(*index.locate(state)[::2], strict=True))
        for index, state in zip((whole, parts), states, strict=True)
    ]
    assert found[0] == found[1] >= set(zip(documents, documents, strict=True))


def test_a_short_span_is_closed_by_the_end_token():
    tokens = np.array([[5, 6, 7], [5, -1, -1], [-1, -1, -1]])
    assert close(tokens, 9).tolist() == [[5, 6, 7], [5, 9, -1], [-1, -1, -1]]
    assert close(tokens, 9, -100).tolist() == [[5, 6, 7], [5, 9, -100], [-100] * 3]
