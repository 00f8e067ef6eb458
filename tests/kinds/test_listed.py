"""Kinds whose identifiers are listed: titles, a user's file, several of a kind in one study."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.cube.open import open_cube
from genret_dask.datasets import BeirDataset
from genret_dask.datasets.stored import read_artefact
from genret_dask.errors import GenretError
from genret_dask.identifiers.listing import Listing, list_identifiers, prefixes_of_others
from genret_dask.kinds import CodesIdentifiers, FileIdentifiers, TitlesIdentifiers
from genret_dask.kinds.listed import _of_documents
from genret_dask.models.manifest import read_manifest
from genret_dask.models.tokens import read_tokenizer
from genret_dask.specs import InferenceSpec, ModelSpec, TrainingSpec
from genret_dask.storage.layout import RunLayout
from genret_dask.study.sweep import Study, sweep
from tests.conftest import make_collection, source_of, write_beir
from tests.judge import torch_scores
from tests.runs import TINY, make_spec

# --- the list -------------------------------------------------------------------------------------


def padded(sequences: list[list[int]]) -> np.ndarray:
    rows = np.full((len(sequences), max(1, *map(len, sequences))), -1, dtype=np.int32)
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence)] = sequence
    return rows


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=30).filter(any))
def test_equal_rows_are_one_identifier_and_all_ascend(sequences):
    tokens, identifier = list_identifiers(padded(sequences))
    distinct = sorted({tuple(one) for one in sequences if one})
    assert [tuple(row[row >= 0].tolist()) for row in tokens] == distinct
    for one, row in zip(sequences, identifier, strict=True):
        assert (distinct[row] == tuple(one)) if one else row == -1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=30))
def test_beginnings_of_others_are_found(sequences):
    tokens, _ = list_identifiers(padded(sequences))
    rows = [tuple(row[row >= 0].tolist()) for row in tokens]
    expected = [
        place
        for place, one in enumerate(rows)
        if any(other != one and other[: len(one)] == one for other in rows)
    ]
    assert prefixes_of_others(tokens).tolist() == expected


def plain_ranking(ranking: list[int], groups: list[list[int]], beam: int) -> list[int]:
    return [document for one in ranking for document in groups[one]][:beam]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.integers(0, 99))
def test_documents_of_an_identifier_follow_each_other(identifier, seed):
    _, renumbered = np.unique(identifier, return_inverse=True)
    count = int(renumbered.max()) + 1
    listing = Listing(
        np.zeros((count, 1), np.int32), renumbered.astype(np.int32), np.zeros(1), (1,)
    )
    groups = [np.flatnonzero(renumbered == one).tolist() for one in range(count)]
    beams, most = np.array([1, 3, 30]), min(30, count)
    beams = np.minimum(beams, len(identifier))
    ranked = np.full((2, 3, most), -1, dtype=np.int32)
    rng = np.random.default_rng(seed)
    for query in range(2):
        for place, beam in enumerate(beams):
            kept = rng.permutation(count)[: min(beam, count)]
            ranked[query, place, : len(kept)] = kept
    scores = np.where(ranked < 0, np.nan, -ranked.astype(np.float32))
    found = _of_documents({"score": scores}, ranked, listing, beams)
    for query in range(2):
        for place, beam in enumerate(beams.tolist()):
            kept = [one for one in ranked[query, place].tolist() if one >= 0]
            expected = plain_ranking(kept, groups, beam)
            row = found["doc"][query, place]
            assert row[row >= 0].tolist() == expected
            assert (row[len(expected) :] == -1).all()
            own = renumbered[expected]
            np.testing.assert_array_equal(found["score"][query, place, : len(expected)], -own)


# --- whole studies --------------------------------------------------------------------------------

TITLES = ["North sea", "A wide sea", "North sea", "sea", "North sea 2", "Sea of trees and stones"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("listed")
    collection = make_collection(24)
    titles = [TITLES[row % len(TITLES)] for row in range(len(collection))]
    write_beir(replace(collection, titles=titles), root / "beir")
    return root


def study(root: Path, *identifiers, **changes):
    llama = ModelSpec(family="llama", config=TINY["llama"], name="llama")
    return make_spec(
        root,
        identifiers=identifiers,
        models=changes.pop("models", (llama,)),
        training=TrainingSpec(examples=160, batch_size=16, evaluations=1),
        inference=InferenceSpec(beams=(1, 3, 30), negatives=12, batch_queries=8),
        **changes,
    )


@pytest.fixture(scope="module")
def cube(root) -> xr.DataTree:
    """Of several kinds, and several of a kind, in one study."""
    words = ["ka", "lo", "mi", "nu"]
    lines = [f"d{row}\t{words[row % 4]} {words[row // 4 % 4]} {row}" for row in range(24)]
    (root / "texts.tsv").write_text("\n".join(lines) + "\n")
    numbers = {f"d{row}": [row % 5, row // 5, 7][: 2 + (row == 3)] for row in range(24)}
    (root / "numbers.json").write_text(json.dumps(numbers))
    spec = study(
        root,
        CodesIdentifiers(levels=2, codes=6),
        CodesIdentifiers(name="wide", levels=1, codes=12),
        TitlesIdentifiers(),
        TitlesIdentifiers(name="shared", repeated="share"),
        FileIdentifiers(name="texts", path=root / "texts.tsv"),
        FileIdentifiers(name="numbers", path=root / "numbers.json", shared=True),
        models=(
            ModelSpec(family="llama", config=TINY["llama"], name="llama"),
            ModelSpec(
                family="t5",
                config=TINY["t5"],
                name="t5",
                identifiers=("titles", "shared", "texts", "numbers"),
            ),
        ),
    )
    return open_cube(sweep(spec, runs=root / "runs"))


@pytest.mark.parametrize("model", ["llama", "t5"])
@pytest.mark.parametrize("label", ["titles", "shared", "texts", "numbers"])
def test_a_beam_that_covers_the_corpus_ranks_as_torch_does(root, cube, label, model):
    spec = study(root, *(TitlesIdentifiers(),))
    kinds = {
        "titles": TitlesIdentifiers(),
        "shared": TitlesIdentifiers(name="shared", repeated="share"),
        "texts": FileIdentifiers(name="texts", path=root / "texts.tsv"),
        "numbers": FileIdentifiers(name="numbers", path=root / "numbers.json", shared=True),
    }
    layout = RunLayout(root / "runs" / spec.name)
    group = cube[f"{label}/search"].sel(model=model)
    kind = kinds[label]
    digest = None
    if kind.per_tokenizer:
        digest = next(layout.identifiers(label).iterdir()).name
    listing = kind.open(layout.identifiers(label, digest))
    for query in range(2):
        text = str(group["text"][query].values)
        start = read_manifest(layout.model(label, model)).start_token
        base = listing.block_starts + (start + 1 if listing.rows else 0)
        scores = torch_scores(layout, label, model, listing.paths(np.arange(24)), base, text)
        widest = group.isel(query=query, beam=-1)
        docs = widest["doc"].values
        assert sorted(docs) == list(range(24))
        np.testing.assert_allclose(widest["score"].values, scores[docs], atol=1e-4)
        assert (np.diff(widest["score"].values) <= 0).all()
        if label == "shared":
            assert listing.shared and len(listing.tokens) == 5
        losses = cube[f"{label}/contrast"].sel(model=model).isel(query=query)
        mine = (losses["logit"] - losses["log_partition"]).sum("step").values
        np.testing.assert_allclose(mine, scores[losses["doc"].values], atol=1e-4)


def test_equal_titles_are_told_apart_by_a_number(root, cube):
    layout = RunLayout(root / "runs" / "toy")
    kind = TitlesIdentifiers()
    folder = next(layout.identifiers("titles").iterdir())
    listing = kind.open(folder)
    assert not listing.shared and len(listing.tokens) == 24

    tokenizer = read_tokenizer(layout.tokenizer() / "tokenizer.json")
    paths = listing.paths(np.arange(24)) + listing.block_starts
    spelled = [
        tokenizer.decode([int(token) for token in row if token >= 0][:-1]).strip()
        for row in paths[:12]
    ]
    expected = ["north sea", "a wide sea", "north sea 10", "sea", "north sea 2"]
    assert spelled[:5] == expected  # of eight; the number 2 is another's title
    assert len(set(spelled)) == 12


def test_codes_that_are_exported_and_read_back_give_the_same_cube(root, cube):
    codes = RunLayout(root / "runs" / "toy").identifiers("codes") / "codes.npy"
    spec = study(root, FileIdentifiers(name="codes", path=codes))
    again = open_cube(sweep(spec, runs=root / "again"))
    for dataset in ("search", "contrast"):
        xr.testing.assert_identical(
            cube[f"codes/{dataset}"].to_dataset().drop_vars("checkpoint"),
            again[f"codes/{dataset}"].to_dataset().drop_vars("checkpoint"),
        )


def test_a_model_may_generate_some_identifiers_alone(cube):
    for label in ("codes", "wide"):
        assert cube[f"{label}/search"]["model"].values.tolist() == ["llama"]
    assert cube["titles/search"]["model"].values.tolist() == ["llama", "t5"]


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.tsv", "d0\tone\nd0\ttwo\n", "several identifiers for 1 documents: d0"),
        ("x.tsv", "d0 one\n", "line 1"),
        ("x.tsv", "d0\t\xe9t\xe9\n", "is not UTF-8"),
        ("x.tsv", "z\tone\n", "1 ids that the collection lacks: z"),
        ("x.json", '{"d0": "one"', "no object of ids and identifiers"),
        ("x.json", '{"d0": [1, -2]}', "a text, or a list of tokens"),
        ("x.jsonl", '{"_id": "d0"}\n', "line 1"),
        ("x.jsonl", '{"_id": "d0", "identifier": [1]}\n{"_id": "d1", "identifier": "a"}\n',
         "entry 2"),
        ("x.pkl", "x", "pickles are not read"),
        ("x.npy", "x", "cannot be read"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_before_any_work(root, tmp_path, name, content, said):
    (tmp_path / name).write_text(content, encoding="latin-1")
    spec = study(root, FileIdentifiers(path=tmp_path / name))
    with pytest.raises(GenretError, match=said):
        Study(spec, runs=tmp_path / "runs").check()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prefixes": "refuse"}, "12 documents .* are the beginnings of others: d0, d2, d4"),
        ({"end": False}, "have 1 to 2 tokens"),
        ({}, None),
    ],
)
def test_identifiers_that_others_begin_with(root, tmp_path, settings, said):
    identifiers = {f"d{row}": [row // 2, *[1] * (row % 2)] for row in range(24)}
    (tmp_path / "x.json").write_text(json.dumps(identifiers))
    kind = FileIdentifiers(path=tmp_path / "x.json", **settings)
    source = source_of(read_beir(root, tmp_path))
    if said is not None:
        with pytest.raises(GenretError, match=said):
            kind.tokens(source)
        return
    found = kind.tokens(source)
    assert found.end == 14 and found.level_sizes == (12, 2)  # the row behind those of the levels


def test_documents_of_one_identifier_are_refused_unless_they_may_share(root, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({f"d{row}": [row // 2] for row in range(24)}))
    source = source_of(read_beir(root, tmp_path))
    kind = FileIdentifiers(path=tmp_path / "x.json")
    (said,) = kind.refusals(source.collection)
    assert "24 documents share their identifier" in said and "d0, d1, d2" in said
    with pytest.raises(GenretError, match="24 documents share their identifier"):
        kind.tokens(source)
    allowed = FileIdentifiers(path=tmp_path / "x.json", repeated="share")
    assert not [*allowed.refusals(source.collection)]
    shared = allowed.tokens(source)
    assert shared.rows.tolist() == [[row // 2] for row in range(24)] and shared.end is None


def test_rows_of_an_array_may_have_no_identifier_and_no_holes(root, tmp_path):
    collection = read_beir(root, tmp_path)
    numbers = np.stack([np.arange(24), np.full(24, -1)], axis=1)
    numbers[3, 0] = -1
    np.save(tmp_path / "x.npy", numbers)
    kind = FileIdentifiers(path=tmp_path / "x.npy")
    (said,) = kind.refusals(collection)
    assert "no identifier for 1 of 24 documents: d3" in said
    assert kind.tokens(source_of(collection)).rows[:, 0].tolist() == numbers[:, 0].tolist()
    numbers[3, 1] = 2
    np.save(tmp_path / "y.npy", numbers)
    with pytest.raises(GenretError, match=r"y.npy row 3 is \[-1, 2\]"):
        list(FileIdentifiers(path=tmp_path / "y.npy").refusals(collection))


def read_beir(root: Path, folder: Path):
    return BeirDataset(path=root / "beir").load(folder)


def test_a_file_that_is_not_there_is_refused_before_any_work(root, tmp_path):
    spec = study(root, FileIdentifiers(path=tmp_path / "none.tsv"))
    with pytest.raises(GenretError, match=r"none.tsv cannot be read") as caught:
        Study(spec, runs=tmp_path / "runs").check()
    assert str(caught.value).count("none.tsv") == 1


def test_documents_without_a_title_or_with_too_long_a_one_are_named(root, tmp_path):
    collection = make_collection(6)
    titles = ["a", "", "b " * 2000, "c", "", "d"]
    write_beir(replace(collection, titles=titles), tmp_path / "beir")
    spec = study(tmp_path, TitlesIdentifiers())
    with pytest.raises(GenretError) as caught:
        Study(spec, runs=tmp_path / "runs").check()
    assert "2 documents have an empty {title}: d1, d4" in str(caught.value)
    assert "1 documents have a {title} of more than 32 words: d2" in str(caught.value)


def test_a_template_of_unknown_fields_is_refused():
    with pytest.raises(ValueError, match="is no template of"):
        TitlesIdentifiers(template="{author}")


def test_tokens_that_the_tokeniser_lacks_are_named(root, tmp_path):
    lines = [json.dumps({"_id": f"d{row}", "identifier": ["<a_1>", f"<b_{row}>"]})
             for row in range(24)]  # fmt: skip
    (tmp_path / "tokens.jsonl").write_text("\n".join(lines))
    spec = study(root, FileIdentifiers(path=tmp_path / "tokens.jsonl"))
    with pytest.raises(GenretError, match="lacks 25 tokens of the identifiers: <a_1>"):
        Study(spec, runs=tmp_path / "runs").training_tasks()


def test_titles_are_described(root, cube):
    layout = RunLayout(root / "runs" / "toy")
    folder = next(layout.identifiers("shared").iterdir())
    kind = TitlesIdentifiers(name="shared", repeated="share")
    found = kind.diagnostics(folder, read_artefact(layout.collection))
    listing = kind.open(folder)
    lengths = (listing.tokens >= 0).sum(axis=1)
    assert found.facts["documents"] == 24 and found.facts["unreachable"] == 0
    assert found.facts["identifiers"] == 5 and found.facts["sharing_an_identifier"] == 24
    assert found.facts["tokens_least"] == lengths.min()
    assert found.facts["tokens_most"] == lengths.max() == len(found.levels)
    assert found.facts["tokens_mean"] == pytest.approx(lengths.mean())
