"""A2, A6, A8, B2, B4: what a model computes, and what a small or odd collection leads to."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from genret_dask import open_cube
from genret_dask.cli import main
from genret_dask.datasets import BeirDataset
from genret_dask.datasets.collection import Collection, Qrels
from genret_dask.errors import DatasetError, InputError, NumericError, TrainingError
from genret_dask.executors.failures import read_failures
from genret_dask.fits.fitting import fit_points
from genret_dask.fits.points import Points
from genret_dask.identifiers import evenly
from genret_dask.identifiers.quantisers.rq import ResidualQuantiser
from genret_dask.identifiers.vectors import Vectors
from genret_dask.inference import beam, resident
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.ngrams import NgramShortlist
from genret_dask.inference.own import own_documents, without_own
from genret_dask.inference.score import score
from genret_dask.inference.session import BeamSession
from genret_dask.kinds import CodesIdentifiers
from genret_dask.metrics.queries import reduce_queries
from genret_dask.metrics.table import records
from genret_dask.run.explain import _asked, _own, explain
from genret_dask.shards import task
from genret_dask.specs import InferenceSpec, load_spec
from genret_dask.study.candidates import build_candidates, count_negatives
from genret_dask.study.sweep import Study
from tests.conftest import FAMILIES, make_model, random_codes
from tests.findings.conftest import FEMTO, tiny_documents, tiny_spec, write_collection
from tests.identifiers.test_ngrams import make_index
from tests.inference.test_beam import TableSession as CodeSession
from tests.inference.test_beam import pad
from tests.inference.test_ngram_search import WORDS as NGRAM_WORDS
from tests.inference.test_ngram_search import TableSession as NgramSession
from tests.metrics.conftest import _random_cube

BAD = {"nan": np.nan, "minus-inf": -np.inf, "inf": np.inf}


class Poisoned:
    """A session that gives what is not finite to some queries at one step.

    Parameters
    ----------
    rows : list of int or slice
        Queries of the batch.
    value : float
    step : int
    what : {"logits", "partition", "both"}
    """

    def __init__(self, session, rows, value, step=0, what="both"):
        self.session, self.rows, self.value, self.at, self.what = session, rows, value, step, what
        self.manifest = getattr(session, "manifest", None)

    def prefill(self, tokens, lengths):
        return 0, self.session.prefill(tokens, lengths)

    def step(self, state, tokens, parents, rows):
        number, inner = state
        logits, partition, inner = self.session.step(inner, tokens, parents, rows)
        if number == self.at:
            logits, partition = logits.copy(), partition.copy()
            if self.what != "partition":
                logits[self.rows] = self.value
            if self.what != "logits":
                partition[self.rows] = self.value
        return logits, partition, (number + 1, inner)


CODES = random_codes(12, (3, 4), 0)
WORDS = Vocabulary(0, CODES.block_starts + 1, CODES.level_sizes)
PADDED = pad([[1, 2], [3], [4, 5, 6], [7]])


def search_codes(poison):
    session = poison(CodeSession(CODES.rows + 1, 50, 0))
    return beam.search(session, CODES.trie, WORDS, *PADDED, (1, 5, 100))


def score_codes(poison):
    session = poison(CodeSession(CODES.rows + 1, 50, 0))
    documents = np.array([[0, 3, -1]] * 4)
    return score(session, WORDS, *PADDED, CODES.paths(documents))


def search_ngrams(poison, listed=32):
    index = make_index([[0, 1, 2, 3, 1], [2, 2, 0, 1], [4, 3, 2]], 2)
    tokens = np.zeros((4, 2), dtype=np.int64)
    constraint = NgramShortlist(index, 1, 3, listed=listed)
    session = poison(NgramSession(100))
    return beam.find(session, constraint, NGRAM_WORDS, tokens, tokens[:, 0] + 2, [2, 5])


SEARCHES = {
    "codes": search_codes,
    "score": score_codes,
    "ngrams": search_ngrams,
    "ngrams-looked-up": lambda poison: search_ngrams(poison, listed=1),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize("step", [0, 1], ids=["first-step", "second-step"])
@pytest.mark.parametrize("what", ["both", "logits", "partition"])
@pytest.mark.parametrize(
    ("rows", "first"), [([1], 1), ([3], 3), ([0, 1, 2, 3], 0)], ids=["one", "last", "all"]
)
@pytest.mark.filterwarnings(
    "error",
    "ignore::ResourceWarning",  # of what other tests left to the garbage collector
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
def test_a2_what_is_not_finite_is_an_error_that_names_row_and_step(
    search, value, step, what, rows, first
):
    with pytest.raises(NumericError, match=f"step {step + 1}: .*row {first} of the batch") as found:
        search(lambda session: Poisoned(session, rows, value, step, what))
    copy = pickle.loads(pickle.dumps(found.value))
    assert (copy.row, copy.step, str(copy)) == (first, step, str(found.value))
    assert "codes/t5, query q7, step" in str(copy.of("codes/t5", "q7"))


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a2_padding_may_hold_anything(search):
    class Padding(Poisoned):
        def step(self, state, tokens, parents, rows):
            logits, partition, state = super().step(state, tokens, parents, rows)
            slots = np.arange(tokens.shape[1])
            # The last slots of a row that repeat token and parent 0 are padding.
            used = np.where((tokens > 0) | (parents > 0), slots, 0).max(axis=1)
            empty = slots > used[:, None]
            logits[empty], partition[empty] = np.nan, np.nan
            return logits, partition, state

    plain = search(lambda session: session)
    padded = search(lambda session: Padding(session, [], 0.0))
    plain, padded = (
        one if isinstance(one, tuple) else vars(one).values() for one in (plain, padded)
    )
    for expected, found in zip(plain, padded, strict=True):
        if not hasattr(expected, "shape"):
            expected, found = expected.score, found.score
        np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    codes = random_codes(60, (4, 3, 4), seed=1)
    return make_model(request.param, codes, tmp_path_factory.mktemp(request.param))


class ResidentPoison:
    """A session whose `step_resident` gives what is not finite to some rows."""

    def __init__(self, session, rows, value, step):
        self._session, self._rows, self._value, self._left = session, rows, value, step

    def __getattr__(self, name):
        return getattr(self._session, name)

    def step_resident(self, state, tokens, parents, rows):
        logits, partition, state = self._session.step_resident(state, tokens, parents, rows)
        if self._left == 0:
            logits, partition = logits.numpy().copy(), partition.numpy().copy()
            logits[self._rows] = partition[self._rows] = self._value
            logits, partition = self.place(logits), self.place(partition)
        self._left -= 1
        return logits, partition, state


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("rows", [[1], [2], [0, 1, 2]], ids=["one", "last", "all"])
def test_a2_the_resident_search_counts_what_is_not_finite(model, value, step, rows):
    session = ResidentPoison(model.session, rows, value, step)
    queries = pad([[1, 2], [3], [4, 5, 6]])
    with pytest.raises(NumericError, match=f"step {step + 1}: .*row {rows[0]} of the batch"):
        resident.search(session, model.codes.trie, model.vocabulary, *queries, (1, 5, 100))


def test_a2_the_resident_search_ignores_padding(model):
    # Three documents in a grid that has room for more: rows of node -1 hold what they hold.
    queries = pad([[1, 2], [3], [4, 5, 6]])
    few = random_codes(3, (4, 3, 4), seed=1)
    arguments = few.trie, model.vocabulary, *queries, (1, 2)
    found = resident.search(model.session, *arguments)
    np.testing.assert_array_equal(found.doc, beam.search(model.session, *arguments).doc)


def test_a2_a_sweep_with_a_poisoned_model_fails_its_shards_alone(tiny, tmp_path, monkeypatch):
    spec = tiny_spec(tiny, models=[FEMTO["t5"], FEMTO["llama"]])
    study = Study(spec, runs=tmp_path / "runs")
    study.export()
    healthy = BeamSession.step

    def step(self, state, tokens, parents, rows):
        logits, partition, state = healthy(self, state, tokens, parents, rows)
        if self.manifest.family == "llama":
            logits, partition = logits.copy(), partition.copy()
            logits[-1], partition[-1] = np.nan, np.nan
        return logits, partition, state

    monkeypatch.setattr(BeamSession, "step", step)
    with pytest.raises(NumericError, match=r"codes/llama, query q\d+, step 1: .* nan"):
        study.search()
    failed = read_failures(study.folder)
    assert [one.key.rpartition("-")[2] for one in failed] == ["00000000", "00000004"]
    assert all("search.codes.llama" in one.key and "NumericError" in one.error for one in failed)
    monkeypatch.setattr(BeamSession, "step", healthy)
    again = Study(spec, runs=tmp_path / "runs")
    again.search()
    assert not read_failures(study.folder)


# --- A6: a query's own document ------------------------------------------------------------------

ARGUMENTS = {"a": "Cats are better", "b": "Dogs  are\nbetter", "c": "Fish swim", "7": "seven"}
ASKED = {
    "a": "Cats are better",  # the document itself
    "b": " Dogs are better ",  # itself up to white space
    "c": "Fish swim",  # itself, but judged relevant
    "7": "a number by chance",  # another text
    "x": "Fish swim",  # another id
}


def arguments(title: str = "") -> Collection:
    qrels = {
        "test": Qrels.from_rows([0, 1, 2, 3, 4], [1, 0, 2, 0, 0], [1] * 5),
        "train": Qrels.from_rows([], [], []),
        "dev": Qrels.from_rows([], [], []),
    }
    return Collection(
        name="arguments",
        version="1",
        document_ids=tuple(ARGUMENTS),
        titles=(title,) * len(ARGUMENTS),
        texts=tuple(ARGUMENTS.values()),
        query_ids=tuple(ASKED),
        queries=tuple(ASKED.values()),
        qrels=qrels,
    )


@pytest.mark.parametrize(
    ("ignore", "expected", "warned"),
    [
        (None, [0, 1, -1, -1, -1], True),
        (True, [0, 1, -1, 3, -1], False),
        (False, [-1] * 5, False),
    ],
    ids=["A6-texts-decide", "A6-true", "A6-false"],
)
@pytest.mark.parametrize("title", ["", "A title"])
def test_a6_which_document_is_a_query_s_own(ignore, expected, warned, title, caplog):
    collection = arguments(title)
    own = own_documents(collection, collection.qrels["test"], np.arange(5), ignore)
    assert own.tolist() == expected
    assert ("1 of 5 queries have the id of a document of another text (7)" in caplog.text) == warned


def test_a6_a_title_belongs_to_the_text():
    collection = replace(arguments("The case"), queries=("The case Cats are better", *"bcde"))
    assert own_documents(collection, collection.qrels["test"], np.array([0]), None).tolist() == [0]


def test_a6_a_query_that_is_explained_has_the_same_own_document_however_it_is_spaced():
    collection = replace(arguments(), queries=("Cats are better", *"bcde"))
    own = own_documents(collection, collection.qrels["test"], np.array([0]), True)
    for text in ("Cats are better", " Cats\u00a0are  better\n"):
        rows = _asked(text, collection)
        assert _own(rows, collection, InferenceSpec(ignore_identical_ids=True)) == {int(own[0])}


def test_a6_a_collection_that_is_validated_says_so(tmp_path):
    folder = write_collection(
        tmp_path, {"1": "a", "2": "b"}, {"1": "q", "x": "r"}, {"test": [("1", "2", 1)]}
    )
    result = CliRunner().invoke(main, ["datasets", "validate", str(folder)])
    assert result.exit_code == 0 and "1 queries have the id of a document" in result.stdout


def test_rankings_of_n_grams_that_hold_nothing_are_said(tmp_path, caplog):
    """B1: SEAL weighs an n-gram 0 that is no likelier to the model than in the corpus."""
    folder = write_collection(
        tmp_path / "beir", ["ice in the north"], ["ice"], {"test": [("q0", "d0", 1)]}
    )
    spec = tiny_spec(
        folder, identifiers=[{"kind": "ngrams", "spans": 2}], inference={"beams": [1, 5]}
    )
    study = Study(spec, runs=tmp_path)
    cube = open_cube(study.search())["ngrams/search"].to_dataset()
    empty = int((cube["doc"].sel(beam=5).isel(rank=0) < 0).sum())
    study.analyse()
    assert (f"{empty} of 1 rankings of ngrams at beam 5 hold no document" in caplog.text) == (
        empty > 0
    )


def test_a6_no_query_has_itself_as_a_negative():
    collection = arguments()
    rows = np.arange(5)
    own = own_documents(collection, collection.qrels["test"], rows, None)
    built = build_candidates(collection, collection.qrels["test"], rows, 10, 0, own=own)
    for row in range(5):
        negatives = {int(one) for one in built["doc"][row][~built["is_positive"][row]]} - {-1}
        relevant = collection.qrels["test"].document[row]
        assert negatives == set(range(4)) - {int(relevant), int(own[row])}


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 3), st.integers(1, 6))
def test_a6_those_behind_move_up_as_in_a_plain_loop(seed, queries, beams, ranks):
    rng = np.random.default_rng(seed)
    doc = np.full((queries, beams, ranks), -1, np.int32)
    for place in np.ndindex(queries, beams):
        held = rng.integers(0, ranks + 1)
        doc[place][:held] = rng.permutation(8)[:held]
    own = rng.integers(-1, 8, queries).astype(np.int32)
    score = np.where(doc >= 0, rng.normal(size=doc.shape), np.nan).astype(np.float32)
    token = np.where(doc[..., None] >= 0, rng.integers(0, 9, (*doc.shape, 2)), -1).astype(np.int32)
    flops = rng.normal(size=(queries, beams))
    arrays = {"doc": doc, "score": score, "token": token, "flops": flops}
    found = without_own(arrays, CodesIdentifiers().variables["search"], own)
    for query, place in np.ndindex(queries, beams):
        kept = [rank for rank in range(ranks) if doc[query, place, rank] not in (-1, own[query])]
        for name, none in (("doc", -1), ("score", np.nan), ("token", -1)):
            before, after = arrays[name][query, place], found[name][query, place]
            np.testing.assert_array_equal(after[: len(kept)], before[kept])
            assert np.array_equal(
                after[len(kept) :], np.full_like(after[len(kept) :], none), equal_nan=True
            )
    np.testing.assert_array_equal(found["flops"], flops)


@pytest.mark.parametrize("kind", ["codes", "ngrams"])
def test_a6_in_a_sweep_and_in_explain(kind, tmp_path, monkeypatch):
    documents = {f"d{row}": text for row, text in enumerate(tiny_documents())}
    asked = {f"d{row}": documents[f"d{row}"] for row in range(0, 40, 8)}
    pairs = [(name, f"d{(int(name[1:]) + 1) % 40}", 1) for name in asked]
    folder = write_collection(tmp_path / "beir", documents, asked, {"test": pairs})
    identifiers = {
        "codes": {"kind": "codes", "levels": 2, "codes": 8},
        "ngrams": {"kind": "ngrams", "spans": 2, "max_tokens": 4},
    }
    spec = tiny_spec(folder, identifiers=[identifiers[kind]])
    seen = []

    def recorded(arrays, variables, own):
        seen.append((arrays["doc"], own, without_own(arrays, variables, own)["doc"]))
        return without_own(arrays, variables, own)

    monkeypatch.setattr(task, "without_own", recorded)
    cube = Study(spec, runs=tmp_path / "runs").search()
    tree = open_cube(cube)
    search, contrast = (tree[f"{kind}/{name}"].to_dataset() for name in ("search", "contrast"))
    own = [int(name[1:]) for name in search["query"].values.tolist()]
    assert search["own"].values.tolist() == own
    before = np.concatenate([doc for doc, _, _ in seen])
    after = search["doc"].values[0]
    assert any((before[row] == mine).any() for row, mine in enumerate(own))
    for row, mine in enumerate(own):
        assert mine not in contrast["doc"].values[row]
        for place in range(3):
            kept = [one for one in before[row, place].tolist() if one not in (-1, mine)]
            assert [one for one in after[row, place].tolist() if one >= 0] == kept
    name = str(search["query"].values[0])
    found = explain(cube.parent, asked[name], "t5", beam=10, kind=kind)
    shown = [one["document"] for one in found.documents]
    assert shown == [f"d{one}" for one in after[0, 2] if one >= 0] and name not in shown
    assert [one["rank"] for one in found.documents] == list(range(1, len(shown) + 1))


# --- A8: more negatives than documents ------------------------------------------------------------


def test_a8_fewer_negatives_than_asked_for_are_said_and_counted(tiny, tmp_path, caplog):
    study = Study(tiny_spec(tiny, inference={"beams": [1], "negatives": 3200}), runs=tmp_path)
    candidates = study.inputs.candidates
    assert "inference.negatives is 3200, but 6 of 6 queries have fewer: 39 to 39" in caplog.text
    counted = count_negatives(candidates["doc"], candidates["is_positive"])
    assert counted.tolist() == [39] * 6


def test_a8_the_number_of_negatives_stands_beside_the_loss():
    search, contrast = _random_cube(0)
    for record in records("codes", reduce_queries(search, contrast), draws=5):
        assert (record["queries"], record["cgl_queries"], record["negatives"]) == (6, 6, 5.0)
        assert record["chance"] == pytest.approx(np.log(1 + 1 / 5))


# --- B2: nothing to stop on, nothing to train on --------------------------------------------------

KINDS = {
    "codes": {"kind": "codes", "levels": 2, "codes": 8},
    "ngrams": {
        "kind": "ngrams",
        "spans": 2,
        "max_tokens": 4,
        "min_tokens": 3,
        "allow_unreachable": True,
    },
}


def small(folder: Path, splits: str, documents: list[str] | None = None) -> Path:
    """Ten documents, some of one letter, each with a query in one of the splits."""
    texts = documents or [*tiny_documents()[:8], "a", "b"]
    asked = [f"what about {text}" for text in texts]
    qrels = {
        "test": [(f"q{row}", f"d{row}", 1) for row in range(4)],
        "dev": [(f"q{row}", f"d{row}", 1) for row in (8, 9)],
        "train": [(f"q{row}", f"d{row}", 1) for row in (4, 5)],
    }
    return write_collection(folder, texts, asked, {name: qrels[name] for name in splits.split()})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("splits", "dev_split", "pairs"),
    [
        ("test", None, {"codes": 0, "ngrams": 0}),
        ("train test", "train", {"codes": 2, "ngrams": 2}),
        ("dev test", "dev", {"codes": 2, "ngrams": 0}),
    ],
    ids=["B2-test-alone", "no-dev", "B2-dev-unreachable"],
)
def test_b2_without_dev_pairs_training_goes_to_its_end(kind, splits, dev_split, pairs, tmp_path):
    spec = tiny_spec(
        small(tmp_path / "beir", splits),
        identifiers=[KINDS[kind]],
        training={"examples": 64, "batch_size": 16, "evaluations": 4, "query_share": 1.0},
    )
    (record,) = Study(spec, runs=tmp_path / "runs").train().values()
    assert (record["dev_split"], record["dev_pairs"]) == (dev_split, pairs[kind])
    if not pairs[kind]:
        assert record["dev_loss"] is None and record["step"] == record["history"][-1]["step"] == 4
    else:
        losses = [one["dev_loss"] for one in record["history"]]
        assert record["dev_loss"] == min(losses)


REFUSED = {
    "no-text": ({}, [" ", "\n"], "none of the 2 documents of beir has a text"),
    "no-pairs": (
        {"pairs": {"queries": False, "documents": False, "sentences": 0, "spans": 0}},
        None,
        "training.pairs makes no pair of beir",
    ),
    "no-judged-query": ({}, None, "the dev split of beir has no query with a relevant document"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_b2_validate_and_the_run_refuse_with_the_same_words(case, tmp_path):
    training, texts, message = REFUSED[case]
    folder = tmp_path / "beir"
    if texts:
        write_collection(folder, texts, ["q"], {"test": [("q0", "d0", 1)]})
    else:
        small(folder, "test")
    spec = {
        "name": "x",
        "dataset": {"kind": "beir", "path": str(folder)},
        "training": training,
        "inference": {"split": "dev" if case == "no-judged-query" else "test"},
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(spec))
    shown = CliRunner().invoke(main, ["datasets", "validate", str(tmp_path / "sweep.yaml")])
    assert shown.exit_code == 2 and message in shown.output
    with pytest.raises(DatasetError, match=re.escape(message)) as found:
        Study(load_spec(tmp_path / "sweep.yaml"), runs=tmp_path / "runs").train()
    assert str(found.value) in shown.output


@pytest.mark.parametrize(
    ("splits", "remark"),
    [
        ("test", "nor are there train queries: training goes to its end"),
        ("train test", "training stops on the loss of train queries instead"),
    ],
)
def test_b2_validate_says_what_training_will_do(splits, remark, tmp_path):
    folder = small(tmp_path / "beir", splits, ["one  text", "one text", *tiny_documents()[:8]])
    shown = CliRunner().invoke(main, ["datasets", "validate", str(folder)])
    assert shown.exit_code == 0 and remark in shown.output
    assert "note: 1 documents have the text of another" in shown.output


def test_a2_a_dev_loss_that_is_not_finite_ends_training(tiny, tmp_path, monkeypatch):
    from genret_dask.training import loop

    monkeypatch.setattr(loop._Run, "_dev_loss", lambda self: float("nan"))
    with pytest.raises(TrainingError, match="codes/t5: the dev loss became nan by step 8"):
        Study(tiny_spec(tiny), runs=tmp_path).train()


# --- qrels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "query-id\tcorpus-id\tscore",
        "Query ID\tCorpus ID\tScore",
        "QUERY_ID\tdoc\trel",
        " qid \td\ts",
    ],
)
def test_headers_of_qrels_and_lines_that_contradict(header, tmp_path, caplog):
    folder = small(tmp_path / "beir", "test")
    lines = [header, "q0\td0\t1", "q0\td0\t2", "q0\td0\t2", "q1\td1\t0", "q1\td1\t1", "q2\td2\t1"]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    qrels = BeirDataset(path=folder).load().qrels["test"]
    assert qrels.relevance.tolist() == [2, 1, 1]
    assert "2 judgements of the test split contradict another of the same pair" in caplog.text


# --- B4: many documents below one prefix ----------------------------------------------------------


@pytest.mark.parametrize(
    ("vectors", "cells", "most"), [(1000, 32, 1.03), (1000, 300, 1.03), (600, 17, 1.03)]
)
@pytest.mark.parametrize("clumps", [1, 5], ids=["random", "clumped"])
def test_b4_prices_come_close_to_the_best_assignment(vectors, cells, most, clumps):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(clumps, 32)) * 2
    residual = rng.normal(size=(vectors, 32)) + centres[rng.integers(0, clumps, vectors)]
    residual = residual.astype(np.float32)
    centroids = residual[rng.permutation(vectors)[:cells]]
    places = -(-vectors // cells)
    distance = ((residual[:, None] - centroids) ** 2).sum(axis=-1)
    best = linear_sum_assignment(np.tile(distance, places))[1] % cells
    found = evenly._assign_by_price(residual, centroids, places)
    rows = np.arange(vectors)
    assert np.bincount(found, minlength=cells).max() <= places
    assert distance[rows, found].sum() < most * distance[rows, best].sum()
    np.testing.assert_array_equal(found, evenly._assign_by_price(residual, centroids, places))
    if vectors * places * cells <= evenly.EXACT:
        np.testing.assert_array_equal(evenly.assign_evenly(residual, centroids), best)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 90), st.integers(0, 99), st.booleans(), st.integers(1, 8))
def test_b4_no_cell_holds_more_than_its_share(vectors, cells, seed, equal, nearest):
    rng = np.random.default_rng(seed)
    residual = rng.normal(size=(1 if equal else vectors, 4)).astype(np.float32)
    residual = np.tile(residual, (vectors, 1)) if equal else residual
    centroids = rng.normal(size=(cells, 4)).astype(np.float32)
    places = -(-vectors // cells)
    before, evenly._NEAREST = evenly._NEAREST, nearest
    try:
        found = evenly._assign_by_price(residual, centroids, places)
    finally:
        evenly._NEAREST = before
    assert found.min() >= 0 and np.bincount(found, minlength=cells).max() <= places


def test_b4_twelve_thousand_documents_on_one_level():
    vectors = np.random.default_rng(0).normal(size=(12_000, 16)).astype(np.float32)
    cells = ResidualQuantiser().quantise(Vectors([vectors]), levels=1, codes=32, seed=0)
    assert np.bincount(cells[:, 0]).tolist() == [375] * 32


# --- fits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a2_a_fit_says_which_points_have_no_value(bad):
    x = np.array([1e6, 1e7, 1e8, 1e9, 1e10])
    y = (1e3 / x) ** 0.3 + 0.1
    draws = y * np.random.default_rng(0).uniform(0.99, 1.01, (20, 5))
    y[1] = bad
    draws[3, 4] = bad
    points = Points("L(N)", "t5", "cgl", ("n",), x[:, None], y, draws).without_gaps()
    fit = fit_points(points, loss="squares", seed=0)
    assert fit.record()["warnings"][:2] == [
        "1 of 5 points have no finite value and are left out",
        "1 of 20 resamples have no finite value and are left out",
    ]
    with pytest.raises(InputError, match="y holds"):
        fit_points(Points("L(N)", "t5", "cgl", ("n",), x[:, None], y), loss="squares", seed=0)
