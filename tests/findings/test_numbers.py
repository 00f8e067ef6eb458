"""A2, A6, A8, B2, B4: what a model computes, and what a small or odd collection leads to."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from genret_dask.errors import NumericError
from genret_dask.inference import beam, ngram_search, resident
from genret_dask.inference.prefixes import Rules
from genret_dask.inference.score import score
from genret_dask.inference.session import BeamSession
from genret_dask.shards.failures import read_failures
from genret_dask.study import Study
from tests.conftest import FAMILIES, make_model, random_codes
from tests.findings.conftest import FEMTO, tiny_spec
from tests.identifiers.test_ngrams import VOCABULARY, make_index
from tests.inference.test_beam import TableSession as CodeSession
from tests.inference.test_beam import pad
from tests.inference.test_ngram_search import TableSession as NgramSession

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
WORDS = beam.Vocabulary(0, CODES.block_starts + 1, CODES.level_sizes)
PADDED = pad([[1, 2], [3], [4, 5, 6], [7]])


def search_codes(poison):
    session = poison(CodeSession(CODES.rows + 1, 50, 0))
    return beam.search(session, CODES.trie, WORDS, *PADDED, (1, 5, 100))


def score_codes(poison):
    session = poison(CodeSession(CODES.rows + 1, 50, 0))
    documents = np.array([[0, 3, -1]] * 4)
    return score(session, WORDS, *PADDED, CODES.paths(documents))


def search_ngrams(poison, listed=None):
    index = make_index([[0, 1, 2, 3, 1], [2, 2, 0, 1], [4, 3, 2]], 2)
    tokens = np.zeros((4, 2), dtype=np.int64)
    before = ngram_search.LISTED
    ngram_search.LISTED = before if listed is None else listed
    try:
        rules = Rules(VOCABULARY, VOCABULARY - 1, 1, 3)
        return ngram_search.search(
            poison(NgramSession(100)), index, rules, tokens, tokens[:, 0] + 2, [2, 5]
        )
    finally:
        ngram_search.LISTED = before


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
@pytest.mark.filterwarnings("error")
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
