"""n-gram studies: what they are made from, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genret_dask import open_cube
from genret_dask.datasets.pairs import TrainingPairs
from genret_dask.errors import DatasetError, ModelError, StaleError
from genret_dask.identifiers.ngrams import INDEX, read_index
from genret_dask.kinds import NgramsIdentifiers
from genret_dask.kinds.base import IGNORED
from genret_dask.kinds.ngrams import NgramTargets
from genret_dask.metrics import cgl
from genret_dask.models.manifest import read_manifest
from genret_dask.run.explain import explain
from genret_dask.specs import ModelSpec, PretrainedSpec
from genret_dask.storage.artefacts import record_of
from genret_dask.study.sweep import Study
from tests.conftest import make_collection, write_beir
from tests.runs import make_spec


def ngrams(**changes) -> NgramsIdentifiers:
    return NgramsIdentifiers(**{"max_tokens": 4, "spans": 3, **changes})


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    root = tmp_path_factory.mktemp("ngrams")
    write_beir(make_collection(), root / "beir")
    study = Study(make_spec(root, identifiers=(ngrams(part_characters=1000),)), runs=root / "runs")
    study.search()
    return study


@pytest.fixture
def collection():
    return make_collection()


def index_folder(study: Study) -> Path:
    return study.inputs.space(study.spec.identifiers[0], study.spec.models[0]).folder


def one_line(collection, row: int, text: str):
    return replace(collection, texts=(*collection.texts[:row], text, *collection.texts[row + 1 :]))


# --- a study ------------------------------------------------------------------------------------


def test_every_ngram_occurs_and_every_document_holds_what_scored_it(study):
    search = open_cube(study.folder)["ngrams/search"].to_dataset().load()
    index = read_index(index_folder(study))
    assert len(index.parts) > 3
    texts = [index.spans(np.array([row]), np.array([[0, 10**6]]), 500)[0] for row in range(40)]
    held = [text[text >= 0].tolist() for text in texts]
    eos = read_manifest_eos(study)
    for model in range(2):
        for query in range(0, search.sizes["query"], 5):
            for beam in range(search.sizes["beam"]):
                cell = search.isel(model=model, query=query, beam=beam)
                used: set[int] = set()
                for row, weight, count in zip(
                    cell["token"].values, cell["weight"].values, cell["count"].values, strict=True
                ):
                    if np.isnan(weight):
                        assert count == 0 and (row == -1).all()
                        continue
                    ngram = [token for token in row.tolist() if token >= 0 and token != eos]
                    places = [
                        (document, at)
                        for document, text in enumerate(held)
                        for at in range(len(text))
                        if text[at : at + len(ngram)] == ngram
                    ]
                    assert len(places) == count > 0
                    if weight > 0:
                        used |= {document for document, _ in places}
                found = cell["doc"].values
                assert set(found[found >= 0].tolist()) <= used
                assert (np.diff(cell["score"].values[found >= 0]) <= 0).all()


def read_manifest_eos(study: Study) -> int:
    return read_manifest(study.folder / "models" / "ngrams" / "t5").require_reading().eos_token


def test_a_candidates_loss_is_the_mean_over_its_spans(study):
    contrast = open_cube(study.folder)["ngrams/contrast"].to_dataset().load()
    assert contrast.sizes["identifier"] == 3
    losses = contrast["log_partition"].values.astype(float) - contrast["logit"].values
    tokens = contrast["token"].values
    assert ((tokens >= 0) == ~np.isnan(losses)).all()
    doc, positive = contrast["doc"].values, contrast["is_positive"].values
    found = cgl(contrast).values
    for model in range(2):
        for query in range(contrast.sizes["query"]):
            mean = [
                np.mean([np.mean(one[~np.isnan(one)]) for one in losses[model, query, candidate]])
                for candidate in range(contrast.sizes["candidate"])
                if doc[query, candidate] >= 0
            ]
            best = min(x for x, hit in zip(mean, positive[query], strict=False) if hit)
            rest = sum(x for x, hit in zip(mean, positive[query], strict=False) if not hit)
            assert found[model, query] == pytest.approx(-np.log(rest / (rest + best)), rel=1e-9)


def test_a_model_of_an_ngram_has_no_rows_but_the_texts(study):
    for family in ("t5", "llama"):
        manifest = read_manifest(study.folder / "models" / "ngrams" / family)
        assert manifest.vocab_size == manifest.start_token + 1


def test_labels_are_the_sampled_spans_and_d_counts_them(study):
    task = study.training_tasks()[0]
    index, collection = read_index(task.space), study.collection
    sampler = task.identifiers.sampler(collection, task.tokenizer / "tokenizer.json", task.seed)
    targets = NgramTargets(index, 4, 1, sampler)
    drawn = TrainingPairs(collection, task.training.pairs, task.seed)
    pairs = drawn.take(np.arange(0, len(drawn), 7))
    labels = targets.labels(pairs, np.random.default_rng(0))
    for text, document, label in zip(pairs.texts, pairs.document, labels, strict=True):
        options = []
        for span in sampler.sample(text, int(document)):
            tokens = index.spans(document[None], span[None], 4)[0]
            tokens = tokens[tokens >= 0].tolist()
            options.append((tokens + [1] * (len(tokens) < 4) + [IGNORED] * 4)[:4])
        assert label.tolist() in options
    trained = read_manifest(study.folder / "models" / "ngrams" / "t5").training
    assert trained.n_train == 3 * len(drawn)


def test_finished_parts_are_kept_and_an_unfinished_index_is_finished(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "toy")
    copy = Study(study.spec, runs=tmp_path)
    folder = index_folder(copy)
    before = record_of(folder, INDEX, {"parts": dict})
    (folder / "index.json").unlink()
    shutil.rmtree(folder / "part-00001")
    kept = (folder / "part-00000" / "artefact.json").stat().st_mtime_ns
    again = Study(study.spec, runs=tmp_path)
    assert record_of(index_folder(again), INDEX, {"parts": dict}) == before
    assert (folder / "part-00000" / "artefact.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize("kind", ["codes", "ngrams"])
def test_explain_shows_what_the_cube_holds(toy, kind):
    from click.testing import CliRunner

    from genret_dask.cli import main

    run = toy / "serial" / "toy"
    search = open_cube(run)[f"{kind}/search"].to_dataset().isel(query=0).load()
    query = str(search["text"].values)
    cell = search.sel(model="llama", beam=3)
    found = explain(run, query, "llama", beam=3, kind=kind)
    documents = [f"d{row}" for row in cell["doc"].values if row >= 0]
    assert [one["document"] for one in found.documents] == documents
    scores = cell["score"].values[: len(documents)]
    np.testing.assert_allclose([one["score"] for one in found.documents], scores, rtol=1e-4)
    if kind == "ngrams":
        assert len(found.identifiers) == (~np.isnan(cell["weight"].values)).sum()
        for one in found.documents:
            assert one["score"] == pytest.approx(
                sum(value for _, value in one["evidence"]), rel=1e-4
            )
    arguments = ["--query", query, "--model", "llama", "--beam", "3", "--identifiers", kind]
    result = CliRunner().invoke(main, ["explain", str(run), *arguments])
    assert result.exit_code == 0, result.output
    assert query in result.output and {"codes": "code", "ngrams": "n-gram"}[kind] in result.output
    wrong = CliRunner().invoke(main, ["explain", str(run), "--query", "x", "--model", "y"])
    assert wrong.exit_code == 2 and "one of llama, t5" in wrong.output


# --- bad input ----------------------------------------------------------------------------------


def made(collection, root: Path, identifiers: NgramsIdentifiers) -> Study:
    write_beir(collection, root / "beir")
    return Study(make_spec(root, identifiers=(identifiers,)), runs=root / "runs")


def test_passages_that_no_ngram_leads_to_are_named_and_refused(collection, tmp_path):
    short = one_line(one_line(collection, 3, ""), 5, "w1")
    with pytest.raises(DatasetError, match="2 documents have no n-gram of 3 tokens: d3, d5"):
        index_folder(made(short, tmp_path, ngrams(min_tokens=3)))


def test_or_counted_and_left_out_of_the_negatives(collection, tmp_path):
    study = made(one_line(collection, 3, ""), tmp_path, ngrams(allow_unreachable=True))
    study.search()
    record = record_of(index_folder(study), INDEX, {"parts": dict})
    assert record["unreachable"] == record["without_spans"] == [3]
    contrast = open_cube(study.folder)["ngrams/contrast"].to_dataset().load()
    negatives = contrast["doc"].values[~contrast["is_positive"].values]
    assert 3 not in negatives and len(set(negatives.tolist())) > 30
    mine = (contrast["doc"].values == 3).any(axis=1)
    assert np.isnan(cgl(contrast).values[:, mine]).all() and mine.any()
    assert np.isfinite(cgl(contrast).values[:, ~mine]).all()


def test_a_title_stands_for_a_document_without_a_body(collection, tmp_path):
    titled = replace(collection, titles=("a title",) * len(collection))
    blank = one_line(one_line(titled, 3, "  "), 5, "w1")
    study = made(blank, tmp_path, ngrams(min_tokens=2, views=("body", "titles")))
    study.search()
    record = record_of(index_folder(study), INDEX, {"parts": dict})
    assert record["unreachable"] == [] and record["without_spans"] == []
    contrast = open_cube(study.folder)["ngrams/contrast"].to_dataset().load()
    assert (contrast["doc"].values == 3).any() and np.isfinite(cgl(contrast).values).all()


def test_negatives_hold_no_answer(collection, tmp_path):
    answers = {name: ("w7", "w11 w12") for name in collection.query_ids}
    study = made(replace(collection, answers=answers), tmp_path, ngrams())
    found = study.inputs.candidates
    with_answer = {
        row for row, text in enumerate(collection.texts) if "w7" in text.replace(".", " ").split()
    }
    assert with_answer
    negatives = found["doc"][~found["is_positive"] & (found["doc"] >= 0)]
    assert not set(negatives.tolist()) & with_answer
    assert found["is_positive"].any(axis=1).all()


def test_an_index_of_other_settings_is_stale(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "toy")
    other = study.spec.model_copy(update={"identifiers": (ngrams(views=("body", "titles")),)})
    with pytest.raises(StaleError, match="other inputs or settings"):
        index_folder(Study(other, runs=tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_index_is_refused(study, tmp_path, damage):
    folder = tmp_path / "index"
    shutil.copytree(index_folder(study), folder)
    path = folder / "part-00002" / "suffixes.npy"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[-3] ^= 1
        path.write_bytes(data)
    with pytest.raises(ModelError, match="suffixes.npy"):
        read_index(folder)
    (folder / "index.json").unlink()
    with pytest.raises(ModelError, match=r"index\.json is missing"):
        read_index(folder)


@pytest.mark.parametrize(
    ("field", "message"), [("tokenizer", "another tokeniser"), ("corpus", "another collection")]
)
def test_an_index_of_another_tokeniser_or_corpus_is_refused(study, field, message):
    from genret_dask.inference.session import open_session

    index = read_index(index_folder(study))
    session = open_session(study.folder / "models" / "ngrams" / "t5")
    corpus = study.collection.content_hash
    kind, manifest = study.spec.identifiers[-1], session.manifest
    kind.require_match(index, manifest, corpus, Path("x"))
    with pytest.raises(ModelError, match=message):
        kind.require_match(replace(index, **{field: "other"}), manifest, corpus, Path("x"))


def test_pretrained_models_are_constrained_in_their_own_tokeniser(study, tmp_path):
    source = study.folder / "checkpoints" / "ngrams" / "llama"
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 400, "content": "<x>"})
    pretrained = tmp_path / "pretrained"
    shutil.copytree(source, pretrained)
    (pretrained / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = ModelSpec(family="llama", name="mine", pretrained=PretrainedSpec(path=pretrained))
    spec = study.spec.model_copy(update={"models": (*study.spec.models, model), "name": "mine"})
    mine = Study(spec, runs=tmp_path)
    mine.search()
    folders = {path.name for path in (mine.folder / "identifiers" / "ngrams").iterdir()}
    assert len(folders) == 2
    index = read_index(mine.inputs.space(spec.identifiers[0], model).folder)
    manifest = read_manifest(mine.folder / "models" / "ngrams" / "mine")
    assert manifest.start_token == index.vocabulary == 401
    search = open_cube(mine.folder)["ngrams/search"].to_dataset().sel(model="mine")
    assert (search["count"].values[~np.isnan(search["weight"].values)] > 0).all()


def test_titles_and_train_queries_are_views(collection, tmp_path):
    titled = replace(collection, titles=tuple(f"title of {row}" for row in range(len(collection))))
    study = made(titled, tmp_path, ngrams(views=("body", "titles", "queries")))
    index = read_index(index_folder(study))
    streams = [part.stream for part in index.parts]
    document = np.concatenate([stream.documents for stream in streams])
    train = titled.qrels["train"].document
    expected = 2 + np.bincount(train, minlength=len(titled))
    np.testing.assert_array_equal(np.bincount(document), expected)
    assert all(np.diff(stream.starts, append=len(stream.tokens)).min() >= 2 for stream in streams)
