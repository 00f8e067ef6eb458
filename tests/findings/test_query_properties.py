"""Any text as a query: through reader, search, metrics and explain of one model exported once.

Texts that are equal up to white space have one ranking, and every number is finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genret_dask.datasets.words import one_line
from genret_dask.identifiers import read_codes
from genret_dask.identifiers.ngrams import read_index
from genret_dask.inference.session import open_session
from genret_dask.kinds.base import Decoder
from genret_dask.kinds.fixed import CodeDecoder
from genret_dask.kinds.ngrams import NgramDecoder
from genret_dask.metrics import recall
from genret_dask.models.reader import Reader
from genret_dask.run.explain import explain
from genret_dask.study.sweep import Study
from tests.findings.conftest import FEMTO, tiny_spec, write_tiny
from tests.strategies import spelled_alike

BEAMS = (1, 4)
RELEVANT = 7


@dataclass(frozen=True)
class Ready:
    """A finished run and, opened once, what it searches with."""

    run: Path
    reader: Reader
    decoders: dict[str, Decoder]


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Ready:
    root = tmp_path_factory.mktemp("queries")
    spec = tiny_spec(
        write_tiny(root / "beir"),
        models=[FEMTO["t5"]],
        identifiers=[{"kind": "codes", "levels": 2, "codes": 8}, {"kind": "ngrams", "spans": 2}],
        training={"examples": 256, "batch_size": 16, "evaluations": 1},
        inference={"beams": list(BEAMS), "negatives": 4},
        max_tokens=16,
    )
    study = Study(spec, runs=root / "runs")
    study.search()
    run, none = study.folder, np.empty((1, 0), dtype=np.int32)
    spans, (_, ngrams) = np.empty((1, 0, 0, 2), dtype=np.int32), spec.identifiers
    sessions = {kind: open_session(run / "models" / kind / "t5") for kind in ("codes", "ngrams")}
    (index,) = (run / "identifiers" / "ngrams").iterdir()
    decoders: dict[str, Decoder] = {
        "codes": CodeDecoder(
            sessions["codes"], read_codes(run / "identifiers" / "codes"), BEAMS, none
        ),
        "ngrams": NgramDecoder(sessions["ngrams"], read_index(index), ngrams, BEAMS, none, spans),
    }
    folder = run / "models" / "codes" / "t5"
    reading = sessions["codes"].manifest.require_reading()
    return Ready(run, Reader.of_model(folder / "tokenizer.json", reading, 16), decoders)


def check(ready: Ready, kind: str, alike: tuple[str, str]) -> None:
    one, other = (
        ready.decoders[kind].search(*ready.reader.read([text]).padded(np.array([0])))
        for text in alike
    )
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)
    doc, score = one["doc"][0], one["score"][0]
    assert np.isfinite(score[doc >= 0]).all() and np.isnan(score[doc < 0]).all()
    for ranked, total in zip(doc, score, strict=True):
        found = ranked[ranked >= 0]
        assert len(np.unique(found)) == len(found) > 0
        assert (np.diff(total[ranked >= 0]) <= 1e-6).all()
    dims = ("model", "query", "beam", "rank")
    judged = {"doc": RELEVANT, "relevance": 1}
    measured = recall(
        xr.Dataset({"doc": (dims, one["doc"][None])}),
        xr.Dataset({name: (("query", "candidate"), [[one]]) for name, one in judged.items()}),
        k=3,
    )
    assert measured.values[0, 0].tolist() == [float(RELEVANT in ranked[:3]) for ranked in doc]
    if not one_line(alike[0]):
        return
    explained = explain(ready.run, alike[1], "t5", BEAMS[-1], kind)
    names = [f"d{row}" for row in doc[-1] if row >= 0]
    assert [found["document"] for found in explained.documents] == names


ONE_MODEL = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


@pytest.mark.parametrize("kind", ["codes", "ngrams"])
@settings(max_examples=10, deadline=None, suppress_health_check=ONE_MODEL)
@given(alike=spelled_alike())
def test_any_text_is_a_query(ready, kind, alike):
    check(ready, kind, alike)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["codes", "ngrams"])
@settings(max_examples=500, deadline=None, suppress_health_check=ONE_MODEL)
@given(alike=spelled_alike())
def test_any_of_many_texts_is_a_query(ready, kind, alike):
    check(ready, kind, alike)


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u3000"])
def test_a_query_without_a_word_is_searched_as_one(ready, text):
    check(ready, "codes", (text, ""))


@st.composite
def any_texts(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Documents and queries of any text, of which some are empty."""
    texts = st.lists(spelled_alike().map(lambda pair: pair[0]), min_size=1, max_size=12)
    return draw(texts), draw(texts)


def sweep_of(documents: list[str], queries: list[str], root: Path) -> None:
    """A whole sweep of any texts ends, or is refused before anything is trained."""
    from genret_dask.errors import DatasetError
    from tests.findings.conftest import write_collection

    rows = [(f"q{row}", f"d{row % len(documents)}", 1) for row in range(len(queries))]
    spec = tiny_spec(
        write_collection(root / "beir", documents, queries, {"test": rows}),
        identifiers=[
            {"kind": "codes", "levels": 2, "codes": 4},
            {"kind": "ngrams", "spans": 2, "max_tokens": 3, "allow_unreachable": True},
        ],
        training={"examples": 32, "batch_size": 16, "evaluations": 1},
        inference={"beams": [1, 5], "negatives": 3},
    )
    study = Study(spec, runs=root / "runs")
    try:
        study.search()
    except DatasetError as error:
        assert "expected" in str(error) and not (study.folder / "checkpoints").exists()
        return
    assert study.analyse()["metrics"]


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=any_texts())
def test_collections_of_any_text_sweep_to_the_end_or_are_refused(drawn, tmp_path_factory):
    sweep_of(*drawn, tmp_path_factory.mktemp("any"))


def test_a_collection_of_odd_texts_sweeps_to_the_end(tmp_path):
    documents = [
        "</s> <pad>",
        "冰岛的火山在1800年爆发。来自日本的人们来看火山。",
        "x" * 5000,
        " a\u3000b\t",
        "",
    ]
    sweep_of(documents, ["火山", "", "</s>", "a b", "x" * 5000], tmp_path)
