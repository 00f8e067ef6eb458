"""Findings about text: one reader, every script, one limit; each row with the right value."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tokenizers import processors

from genret_dask.cube.open import open_cube
from genret_dask.datasets.collection import Collection, Qrels
from genret_dask.datasets.pairs import TrainingPairs
from genret_dask.datasets.words import sentences, terms, words
from genret_dask.errors import DatasetError, InputError
from genret_dask.identifiers.embedding import SentenceEmbedding, TfidfEmbedding, embed
from genret_dask.identifiers.ngrams import Part
from genret_dask.identifiers.stream import tokenize_stream
from genret_dask.kinds import NgramsIdentifiers
from genret_dask.models.families import family_of
from genret_dask.models.manifest import Reading, read_manifest
from genret_dask.models.pretrained import load_tokenizer
from genret_dask.models.reader import Reader, plain
from genret_dask.run.explain import explain
from genret_dask.specs import ModelSpec, PairsSpec, SweepSpec, TokenizerSpec, TrainingSpec
from genret_dask.study.sweep import Study, sweep
from genret_dask.training.loop import _Run
from genret_dask.training.tokenizer import LONGEST_WORD, train_tokenizer
from tests.findings.conftest import (
    FEMTO,
    PLACES,
    TOPICS,
    VERBS,
    tiny_documents,
    tiny_queries,
    tiny_spec,
    write_collection,
)
from tests.findings.tokenizers import KINDS, reader_at
from tests.identifiers.test_spans import sampler_of


def collection_of(documents: list[str], queries: list[tuple[str, int]] = ()) -> Collection:
    empty = Qrels.from_rows([], [], [])
    rows = [row for _, row in queries]
    asked = Qrels.from_rows(range(len(rows)), rows, [1] * len(rows))
    return Collection(
        name="texts",
        version="1",
        document_ids=tuple(f"d{row}" for row in range(len(documents))),
        titles=("",) * len(documents),
        texts=tuple(documents),
        query_ids=tuple(f"q{row}" for row in range(len(rows))),
        queries=tuple(text for text, _ in queries),
        qrels={"train": asked, "dev": empty, "test": empty},
    )


def reader_for(collection: Collection, vocabulary: int = 400) -> Reader:
    tokenizer = train_tokenizer(collection, TokenizerSpec(vocab_size=vocabulary))
    return family_of("t5").reader(tokenizer, 32)


# --- one reader, in a whole sweep ----------------------------------------------------------------

RESPELLED = {
    "two-blanks": lambda text: text.replace(" ", "  "),
    "tab": lambda text: text.replace(" ", "\t"),
    "trailing-blank": lambda text: text + " ",
    "line-break": lambda text: text.replace(" ", "\n", 2) + "\n",
    "no-break-space": lambda text: text.replace(" ", "\xa0"),
    "ideographic-space": lambda text: "\u3000" + text.replace(" ", "\u2003"),
}
LONG = " ".join(f"{topic} in {place}" for topic in TOPICS for place in PLACES)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A LLaMA whose tokeniser opens every text with a token of its own."""
    root = tmp_path_factory.mktemp("pretrained")
    write_collection(root / "beir", tiny_documents(), ["the volcano"], {"test": [("q0", "d0", 1)]})
    spec = tiny_spec(root / "beir")
    tokenizer = train_tokenizer(spec.dataset.load(), spec.tokenizer)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    from genret_dask.training.build import build_model

    model, _ = build_model(ModelSpec(family="llama", size="femto"), tokenizer, 0, dropout=0, seed=0)
    model.save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def swept(tmp_path_factory, pretrained) -> tuple[SweepSpec, Path, list[logging.LogRecord]]:
    """A sweep whose test queries are six, each in all spellings, and a long one; what it logged."""
    root = tmp_path_factory.mktemp("swept")
    asked = tiny_queries()
    spelled = [(say(text), row) for say in RESPELLED.values() for text, row in asked[6:]]
    queries = [*asked, *spelled, (LONG, 0)]
    rows = [(f"q{number}", f"d{row}", 1) for number, (_, row) in enumerate(queries)]
    texts = [text for text, _ in queries]
    write_collection(root / "beir", tiny_documents(), texts, {"train": rows[:6], "test": rows[6:]})
    mine = {"family": "llama", "name": "mine", "pretrained": {"path": str(pretrained)}}
    spec = tiny_spec(
        root / "beir",
        models=[FEMTO["t5"], mine],
        identifiers=[{"kind": "codes", "levels": 2, "codes": 8}, {"kind": "ngrams", "spans": 2}],
        training={"examples": 128, "batch_size": 16, "evaluations": 1},
        inference={"beams": [5], "negatives": 4, "shard_queries": 16},
        max_tokens=24,
    )
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logging.getLogger("genret_dask").addHandler(handler)
    try:
        sweep(spec, runs=root / "runs")
    finally:
        logging.getLogger("genret_dask").removeHandler(handler)
    return spec, root / "runs" / spec.name, records


@pytest.mark.parametrize("kind", ["codes", "ngrams"])
@pytest.mark.parametrize("spelling", [f"A1-{name}" for name in RESPELLED])
def test_spellings_of_a_query_have_one_ranking(swept, kind, spelling):
    _, run, _ = swept
    search = open_cube(run)[f"{kind}/search"].to_dataset()
    first = 12 + 6 * [f"A1-{name}" for name in RESPELLED].index(spelling)
    plain = search.sel(query=[f"q{row}" for row in range(6, 12)])
    spelled = search.sel(query=[f"q{row}" for row in range(first, first + 6)])
    np.testing.assert_array_equal(spelled["doc"].values, plain["doc"].values)
    np.testing.assert_allclose(spelled["score"].values, plain["score"].values, atol=1e-5)


@pytest.mark.parametrize("model", ["t5", "mine"])
def test_explain_reads_as_the_search_did(swept, model):
    _, run, _ = swept
    search = open_cube(run)["codes/search"].to_dataset().sel(model=model, query=["q6"])
    for say in (str, RESPELLED["tab"]):
        text = tiny_queries()[6][0]
        found = explain(run, say(text), model, 5, "codes").documents
        assert [one["document"] for one in found] == [
            f"d{row}" for row in search["doc"].values[0, 0]
        ]
        assert [one["relevant"] for one in found] == [
            row == 2 for row in search["doc"].values[0, 0]
        ]
    with pytest.raises(InputError, match="half a character"):
        explain(run, "volcano \udc80", model, 5, "codes")


@pytest.mark.parametrize(("model", "opening", "closing"), [("t5", 0, 1), ("mine", 1, 0)])
def test_training_and_search_read_with_the_same_tokens_around(swept, model, opening, closing):
    spec, run, _ = swept
    task = next(
        one for one in Study(spec, runs=run.parent).training_tasks() if one.name == f"codes/{model}"
    )
    trained = _Run(task).reader
    folder = run / "models" / "codes" / model
    searched = Reader.of_model(
        folder / "tokenizer.json", read_manifest(folder).require_reading(), spec.max_tokens
    )
    assert replace(searched, tokenizer=trained.tokenizer) == trained
    assert (len(searched.opening), len(searched.closing)) == (opening, closing)
    text = "volcano </s> <pad>\tin <s> Iceland"
    assert searched.read([text]).flat.tolist() == trained.read([text]).flat.tolist()
    tokenizer = load_tokenizer(str(task.model.pretrained.path)) if opening else None
    if tokenizer is not None:
        assert searched.read(["the volcano"]).flat.tolist() == tokenizer("the volcano").input_ids


def test_cut_texts_are_counted_and_said_once(swept):
    _, run, records = swept
    said = [record.getMessage() for record in records if "are cut" in record.getMessage()]
    assert sorted(line.partition(";")[0] for line in said) == [
        f"1 of 43 queries of the test split have more than 24 tokens for {name} and are cut"
        for name in ("mine", "t5")
    ]
    record = json.loads((run / "checkpoints" / "codes" / "t5" / "training.json").read_text())
    assert record["max_tokens"] == 24 and record["texts_cut"] == 0


# --- one limit -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"training": {"max_tokens": 24}}, id="training"),
        pytest.param({"inference": {"max_tokens": 24}}, id="inference"),
        pytest.param(
            {"models": [{"family": "t5", "size": "a", "training": {"max_tokens": 24}}]}, id="model"
        ),
    ],
)
def test_a_limit_of_training_or_search_alone_is_refused(content):
    with pytest.raises(ValidationError, match="top level.*max_tokens: 24"):
        SweepSpec.model_validate(content)
    assert SweepSpec(max_tokens=24).max_tokens == 24
    assert "max_tokens" not in TrainingSpec.model_fields


# --- special tokens are text ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [f"A5-{kind}" for kind in KINDS])
@pytest.mark.parametrize("text", ["</s>", "a <pad> b", "x</s>y", "[SEP] [CLS]", "<s>", "</s></s>"])
def test_a_special_token_in_a_text_is_text(kind, text):
    reader, special = reader_at(kind.removeprefix("A5-"))
    opening, closing = list(reader.opening), list(reader.closing)
    assert opening and closing and special >= {*opening, *closing}
    row = reader.read([text]).flat.tolist()
    ((bare,),) = reader.bare([text])
    assert row == [*opening, *bare[: 16 - 2], *closing] and not special & set(bare)
    stream = tokenize_stream(iter([(0, text)]), reader, reader.vocabulary)
    assert stream.tokens.tolist() == [*(token + 1 for token in bare), 0]


def test_tokens_that_a_manifest_lacks_are_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    reader, _ = reader_at("bpe")
    path.write_text(reader.tokenizer.to_str())
    facts = {"begin_tokens": (), "end_tokens": (1,), "eos_token": 1}
    assert Reader.of_model(path, Reading(**facts), 8).closing == (1,)
    for name in facts:
        with pytest.raises(ValidationError, match=name):
            Reading(**{key: facts[key] for key in facts if key != name})


# --- every script --------------------------------------------------------------------------------

SCRIPTS = {
    "chinese": (
        "冰岛的火山在1800年爆发。来自日本的人们来看火山。",
        ["冰岛的火山在1800年爆发。", "来自日本的人们来看火山。"],
        "冰岛 的 火山 在 1800 年 爆发 来自 日本 的 人们 来看 火山",
    ),
    "japanese": (
        "アイスランドの火山が噴火した。日本から見に来た。",
        ["アイスランドの火山が噴火した。", "日本から見に来た。"],
        "アイスランド の 火山 が 噴火 した 日本 から 見 に 来 た",
    ),
    "thai": (
        "ภูเขาไฟในไอซ์แลนด์ปะทุ",
        ["ภูเขาไฟในไอซ์แลนด์ปะทุ"],
        "ภูเขาไฟ ใน ไอซ์ แลนด์ ปะทุ",
    ),
    "hindi": (
        "ज्वालामुखी आइसलैंड में फटा। लोग देखने आए।",
        ["ज्वालामुखी आइसलैंड में फटा।", "लोग देखने आए।"],
        "ज्वालामुखी आइसलैंड में फटा लोग देखने आए",
    ),
    "arabic": (
        "اندلع البركان في آيسلندا. هل جاء الناس؟ نعم!",
        ["اندلع البركان في آيسلندا.", "هل جاء الناس؟", "نعم!"],
        "اندلع البركان في آيسلندا هل جاء الناس نعم",
    ),
    "code": (
        "x = np.dot(a_b, c[0])  # the product",
        ["x = np.dot(a_b, c[0]) # the product"],
        "x np.dot a_b c 0 the product",
    ),
    "url": (
        "See https://example.org/a_b?x=1. It is there.",
        ["See https://example.org/a_b?x=1.", "It is there."],
        "See https example.org a_b x 1 It is there",
    ),
    "beyond-the-bmp": ("𝒳𝒴 z 👩\u200d👩 fam", ["𝒳𝒴 z 👩\u200d👩 fam"], "𝒳𝒴 z fam"),
    "wrapped": (
        "A sentence that\nis wrapped. Another\n\nparagraph",
        ["A sentence that is wrapped.", "Another", "paragraph"],
        "A sentence that is wrapped Another paragraph",
    ),
    "empty": ("", [], ""),
    "signs-alone": ("\u0301 ... \u200f\0 _ 🙂", ["\u0301 ... \u200f", "\0 _ 🙂"], ""),
}


@pytest.mark.parametrize("script", [f"A4-{name}" for name in SCRIPTS])
def test_words_and_sentences_of_a_script(script):
    text, expected, spelled = SCRIPTS[script.removeprefix("A4-")]
    assert "".join(sentences(text)).replace(" ", "") == "".join(expected).replace(" ", "")
    assert sentences(text) == expected
    assert [text[start:stop] for start, stop in words(text)] == spelled.split()


_IN_CHINESE = (
    "火山 收成 选举 节日 铁路 冰岛 秘鲁 肯尼亚 日本 挪威 智利 埃及 尼泊尔 爆发 失败 开始 结束"
)
_CHINESE = dict(zip((*TOPICS, *PLACES, *VERBS), _IN_CHINESE.split(" "), strict=True))


def twins() -> dict[str, tuple[list[str], list[tuple[str, int]]]]:
    """Documents and queries of one content in two languages."""
    facts = [
        (topic, place, VERBS[(row + column) % 4], 1800 + 8 * row + column)
        for row, topic in enumerate(TOPICS)
        for column, place in enumerate(PLACES)
    ]
    asked = range(0, 40, 3)
    zh = [(*(_CHINESE[word] for word in fact[:3]), fact[3]) for fact in facts]
    return {
        "english": (
            [f"The {t} in {p} {v} in {y}. Many people came to the {t}." for t, p, v, y in facts],
            [
                (f"when was the {t} in {p} that {v}", row)
                for row in asked
                for t, p, v, _ in [facts[row]]
            ],
        ),
        "chinese": (
            [f"{p}的{t}在{y}年{v}。很多人来看{t}。" for t, p, v, y in zh],
            [(f"{p}的{t}是什么时候{v}的", row) for row in asked for t, p, v, _ in [zh[row]]],
        ),
    }


@pytest.fixture(scope="module", params=["A4-english", "A4-chinese"])
def twin(request) -> Collection:
    return collection_of(*twins()[request.param.removeprefix("A4-")])


def test_a_twin_has_sentences_and_spans(twin):
    sides = {"sentences": PairsSpec(sentences=2, spans=0), "spans": PairsSpec(sentences=0)}
    drawn = {}
    for name, spec in sides.items():
        pairs = TrainingPairs(twin, spec.model_copy(update={"documents": False}), 0)
        drawn[name] = pairs.take(np.arange(pairs.queries, len(pairs)))
    found = zip(drawn["sentences"].texts, drawn["sentences"].document.tolist(), strict=True)
    assert len({*found}) == 80
    for one in drawn.values():
        for text, document in zip(one.texts, one.document.tolist(), strict=True):
            assert text in twin.document(document)
    assert all(4 <= len(words(text)) <= 12 for text in drawn["spans"].texts)


def test_a_twin_has_a_span_start_at_every_word(twin):
    reader = reader_for(twin)
    spec = NgramsIdentifiers(spans=400)
    sampler = sampler_of(twin.texts, twin.document_ids, reader, spec)
    for document in range(0, len(twin), 7):
        text = twin.texts[document]
        starts = np.unique(sampler.sample("", document)[:, 0])
        size, ends = reader.aligned(text)
        expected = np.searchsorted(ends, [start for start, _ in words(text)], side="right")
        assert starts.tolist() == sorted(set(expected.tolist())) and len(starts) > 5


def test_the_nearest_document_of_a_query_is_its_own(twin):
    many = collection_of([*twin.texts, *twin.queries])
    vectors = embed(many, TfidfEmbedding())
    documents, queries = vectors[: len(twin)], vectors[len(twin) :]
    nearest = (queries @ documents.T).argmax(axis=1)
    np.testing.assert_array_equal(nearest, twin.qrels["train"].document)


@pytest.mark.parametrize(
    ("texts", "distinct"),
    [
        pytest.param(["the same words"] * 40, 1, id="same-words"),
        pytest.param([f"a b {'c' * (row % 2)}" for row in range(40)], 2, id="words-of-half"),
        pytest.param(["a b", "b c", "a c"] * 14, 3, id="each-word-in-most"),
        pytest.param([f"the {row}" for row in range(40)], 40, id="one-word-each"),
    ],
)
def test_common_words_are_kept_where_there_are_no_others(texts, distinct):
    vectors = embed(collection_of(texts), TfidfEmbedding())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len({tuple(row) for row in vectors.round(4).tolist()}) == distinct


def test_documents_without_a_word_are_refused():
    with pytest.raises(DatasetError, match="no words to embed"):
        embed(collection_of(["...", "🙂", ""]), TfidfEmbedding())


# --- giant and odd texts -------------------------------------------------------------------------

ODD = {
    "B5-one-letter": "x" * 300_000,
    "B5-one-sign": "." * 100_000,
    "B5-chinese": "冰" * 100_000,
    "B5-words": "volcano in Iceland " * 5_000,
    "B5-marks": "e" + "\u0301" * 100_000,
    "empty": "",
    "specials": "</s><pad> </s>",
    "marks": "\u0301\u0302",
    "nul": "a\0b \0",
    "right-to-left": "\u200fבר\u200e \u202eab\u202c",
}


@pytest.mark.parametrize("name", list(ODD))
def test_an_odd_document_passes_all_that_reads_texts(name, caplog):
    text = ODD[name]
    collection = collection_of([*tiny_documents(), text], [*tiny_queries()[:6], (text[:50], 40)])
    reader = reader_for(collection)
    long = name in ("B5-one-letter", "B5-one-sign", "B5-marks")
    warned = [one for one in caplog.messages if "1 words of the collection have more" in one]
    assert len(warned) == long
    pairs = TrainingPairs(collection, PairsSpec(), 0)
    tokens = reader.read([*pairs.take(np.arange(len(pairs))).texts, text])
    assert tokens.lengths.max() <= 32 and tokens.lengths.min() >= 1
    stream = tokenize_stream(enumerate(collection.texts), reader, reader.vocabulary)
    Part.build(stream, reader.vocabulary)
    spec = NgramsIdentifiers(spans=3)
    sampler = sampler_of(collection.texts, collection.document_ids, reader, spec)
    ((bare,),) = reader.bare([text])
    for query in ("the volcano", text):
        spans = sampler.sample(query, 40)
        if bare:
            assert (spans[:, 0] >= 0).all() and (spans[:, 1] <= len(bare)).all()
        else:
            assert (spans == -1).all()
    assert np.isfinite(embed(collection, TfidfEmbedding())).all()


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        pytest.param("x" * (2 * LONGEST_WORD + 1), 3, id="one-letter"),
        pytest.param("é" * 1500, 2, id="beyond-ascii"),
        pytest.param("冰的" * 600, 0, id="chinese"),
        pytest.param("冰岛的火山，" * 600, 0, id="chinese-with-signs"),
        pytest.param("ab1" * 600, 0, id="letters-and-digits"),
        pytest.param("x" * LONGEST_WORD, 0, id="just-short-enough"),
    ],
)
def test_long_words_are_cut_for_the_training_of_a_tokeniser(word, pieces, caplog):
    from genret_dask.training.tokenizer import _in_pieces

    line, long = _in_pieces(f"a {word} b")
    assert long == (pieces > 0)
    assert line.replace("\n", "") == f"a {word} b"
    if pieces:
        assert len(line.split()) == pieces + 2


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("冰岛的火山", [" ", "冰岛", "的", "火山"], id="A4-chinese"),
        pytest.param(
            "在冰岛 火山的", [" ", "在", "冰岛", " ", "火山", "的"], id="A4-blanks-between"
        ),
        pytest.param(
            "über 1800年", [" über", " ", "1800", "年"], id="A4-bytes-that-look-like-digits"
        ),
        pytest.param("ภูเขาไฟในไอซ์แลนด์", [" ", "ภูเขาไฟ", "ใน", "ไอซ์", "แลนด์"], id="A4-thai"),
        pytest.param("The volcano in", [" the", " volcano", " in"], id="english"),
    ],
)
def test_no_token_spans_words(text, tokens):
    documents = [
        "冰岛的火山在1800年爆发。在冰岛",
        "ภูเขาไฟในไอซ์แลนด์",
        "the volcano in über 1800",
    ] * 9
    tokenizer = reader_for(collection_of(documents), 1000).tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert [tokenizer.decode([one]) for one in ids] == tokens


def test_terms_are_words_in_lower_case_without_signs_inside():
    assert terms("Beyoncé's U.S. TOUR 4,000") == ["beyoncé", "s", "u", "s", "tour", "4", "000"]


def test_a_reader_neither_pads_nor_cuts_as_a_tokeniser_was_told():
    reader, _ = reader_at("bytes", None)
    tokenizer = reader.tokenizer
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(3)
    again = Reader(plain(tokenizer), None, reader.opening, reader.closing, reader.empty)
    text = "The volcano in Iceland erupted in 1800."
    assert next(again.bare([text])) == next(reader_at("bytes", None)[0].bare([text]))


def test_an_embedder_reads_as_models_do(tmp_path, caplog):
    """A5, of embedders: one line, special tokens as text, cut texts counted."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "SEP", "[", "]"]
    words = Tokenizer(
        models.WordPiece({one: row for row, one in enumerate(pieces)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.Whitespace()]
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(vocab_size=9, intermediate_size=8, **sizes)).save_pretrained(tmp_path)
    spec = SentenceEmbedding(kind="sentence", path=tmp_path, max_length=8)
    with caplog.at_level(logging.INFO, logger="genret_dask"):
        found = embed(
            collection_of(["a [SEP] b", "a [ SEP ] b", "a\u2003[SEP]\tb", "a b", "a " * 50]), spec
        )
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    assert np.abs(found[0] - found[3]).max() > 1e-3
    assert "1 of 5 documents fill the 8 tokens" in caplog.text


def test_texts_that_are_cut_are_said(tmp_path, caplog):
    """Of training, a line a study; of a query that is explained, too."""
    folder = write_collection(
        tmp_path / "beir",
        tiny_documents(),
        ["volcano " * 9, "harvest"],
        {"test": [("q0", "d1", 1)]},
    )
    spec = tiny_spec(folder, max_tokens=4)
    sweep(spec, runs=tmp_path)
    assert re.search(
        r"\d+ of the \d+ texts that codes/t5 was trained on have more than 4 tokens", caplog.text
    )
    caplog.clear()
    explain(tmp_path / "tiny", "harvest", "t5", 3)
    assert "tokens" not in caplog.text
    explain(tmp_path / "tiny", "volcano harvest election festival railway in Peru", "t5", 3)
    assert "the query has more than 4 tokens" in caplog.text
