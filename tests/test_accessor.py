"""The accessor: each method is its plain function, as lazy, and reads the cube once."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import genret_dask
from genret_dask.cube.baselines import Ranked, write_baselines
from genret_dask.cube.schema import Group, Template
from genret_dask.cube.store import create_cube, seal_cube
from genret_dask.errors import InputError
from genret_dask.fits import fit_over, fits_of
from genret_dask.kinds import CodesIdentifiers
from genret_dask.metrics import (
    MEASURES,
    average_precision,
    cgl,
    generation_loss,
    mrr,
    ndcg,
    positive_loss,
    recall,
)
from genret_dask.metrics.bootstrap import bootstrap_mean, interval
from genret_dask.metrics.queries import per_query, reduce_queries
from genret_dask.storage.fingerprint import Origin
from tests.fits.conftest import MODELS, write_law_cube

pytestmark = pytest.mark.usefixtures("rough_fits")

CHUNK = re.compile(r"^(?P<array>.+)/c(/|$)")
INDEXES = {"model", "query", "beam"}
COORDINATES = INDEXES | {
    "family", "precision", "n_params", "n_train", "train_fraction", "train_flops", "text"
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_law_cube(folder / "cube.zarr", shard=16)
    return folder


@pytest.fixture
def reads(monkeypatch):
    """Chunks that are read of each array from here on."""
    found: Counter[str] = Counter()
    get = zarr.storage.LocalStore.get

    async def counted(self, key, *arguments, **options):
        if match := CHUNK.match(key):
            found[f"{match['array']}|{key}"] += 1
        return await get(self, key, *arguments, **options)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", counted)
    return found


def arrays_of(reads):
    return {key.split("|")[0].rpartition("/")[2] for key in reads}


def test_each_method_is_its_function(run):
    tree = genret_dask.open_cube(run)
    search, contrast = (tree[f"codes/{name}"].to_dataset() for name in ("search", "contrast"))
    resampled = bootstrap_mean(cgl(contrast), 20)
    pairs = [
        (tree.genret.cgl(), cgl(contrast)),
        (tree["codes"].genret.cgl("softmax"), cgl(contrast, "softmax")),
        (contrast.genret.cgl(), cgl(contrast)),
        (tree.genret.generation_loss(), generation_loss(contrast)),
        (tree.genret.positive_loss(), positive_loss(contrast)),
        (contrast.genret.positive_loss(), positive_loss(contrast)),
        (tree.genret.recall(10), recall(search, contrast, 10)),
        (search.genret.recall(10, contrast), recall(search, contrast, 10)),
        (tree.genret.mrr(10), mrr(search, contrast, 10)),
        (tree.genret.ndcg(5), ndcg(search, contrast, 5)),
        (tree.genret.average_precision(5), average_precision(search, contrast, 5)),
        (tree.genret.flops(), search["flops"]),
        (tree.genret.bootstrap("cgl", 20, 3), bootstrap_mean(cgl(contrast), 20, 3)),
        (tree.genret.cgl().genret.bootstrap(20, 3), bootstrap_mean(cgl(contrast), 20, 3)),
        (tree.genret.cgl().genret.interval(0.9, 20), interval(resampled, 0.9)),
        (tree.genret.per_query(), per_query(search, contrast)),
    ]
    assert tree.genret.kind == "codes"
    for found, _ in pairs:
        assert dask.is_dask_collection(found)
    for found, expected in dask.compute(pairs)[0]:
        xr.testing.assert_identical(found, expected)


def test_values_of_queries_have_the_methods_too(run):
    values = genret_dask.open_cube(run).genret.per_query().compute()
    xr.testing.assert_identical(values.genret.cgl(), values["cgl"])
    xr.testing.assert_identical(values.genret.recall(10), values["recall@10"])
    resampled = values.genret.bootstrap(draws=10)
    assert set(resampled) == set(values)
    xr.testing.assert_identical(resampled["cgl"], bootstrap_mean(values["cgl"], 10))
    fit = values.genret.fit("n_params", family="t5", draws=20)
    assert fit.record() == fit_over(values["cgl"][:6], "n_params", draws=20).record()


def test_laws_over_coordinates(run):
    tree = genret_dask.open_cube(run)
    values = reduce_queries(tree.genret.search, tree.genret.contrast)
    laws = {(fit.points.law, fit.points.series): fit for fit in fits_of("codes", values, 40, 1)}
    of_n = tree.genret.fit("n_params", family="t5", draws=40, seed=1)
    both = tree.genret.fit("n_params", "n_train", family="t5", draws=40, seed=1)
    of_c = tree.genret.fit("flops", metric="recall@10", family="t5", draws=40, seed=1)
    for found, name in ((of_n, "L(N)"), (both, "L(N,D)")):
        expected = laws[name, "t5"]
        assert found.points.law == name and found.points.series == "t5"
        np.testing.assert_allclose(found.law.exponent, expected.law.exponent, rtol=1e-6)
        assert found.r2 == pytest.approx(expected.r2)
        assert found.n == expected.n
    assert of_n.exponents["n"].low == pytest.approx(laws["L(N)", "t5"].exponents["n"].low)
    rows = [row for row, model in enumerate(MODELS) if model[1] == "t5"]
    assert of_c.points.metric == "1 - recall@10" and of_c.n == 4 * len(rows)
    np.testing.assert_allclose(
        of_c.points.x[:, 0], values["flops"].mean("query").values[rows].ravel()
    )
    assert len(tree.genret.fits(draws=5)) == len(laws)


def test_what_cannot_be_done_is_said(run):
    tree = genret_dask.open_cube(run)
    for call, message in [
        (lambda: tree.genret.fit("n_params"), "t5, llama[^$]*family='t5'"),
        (lambda: tree.genret.fit("n_params", family="t6"), "no family 't6'"),
        (lambda: tree.genret.fit("n_parms", family="t5"), "no coordinate 'n_parms'"),
        (lambda: tree.genret.fit(family="t5"), "at least one coordinate"),
        (lambda: tree.genret.fit("n_params", metric="recal"), "no metric 'recal'"),
        (lambda: tree.genret.cgl().mean("query").genret.fit("n_params"), "a metric over query"),
        (lambda: tree["codes/search"].genret.cgl(), "identifier kinds none"),
        (lambda: tree.genret.search.genret.recall(10), "contrast dataset as well"),
        (lambda: tree.genret.search.genret.cgl(), "no 'is_positive'"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    names = [f"{kind}/{part}" for kind in "ab" for part in ("search", "contrast")]
    two = xr.DataTree.from_dict(dict.fromkeys(names))
    with pytest.raises(InputError, match="kinds a, b"):
        two.genret.cgl()


def build_everything(tree):
    values = tree.genret.per_query()
    tree.genret.cgl("softmax"), tree.genret.generation_loss()
    for value in values.data_vars.values():
        value.genret.bootstrap(1000)
        value.genret.interval(0.95)
    return values


def test_opening_and_building_read_metadata_and_coordinates_alone(run, reads):
    build_everything(genret_dask.open_cube(run))
    assert arrays_of(reads) <= COORDINATES


def test_the_analysis_reads_every_chunk_once_and_none_that_it_does_not_need(run, reads):
    tree = genret_dask.open_cube(run)
    tree.genret.fits(draws=5)
    chunks = {key: count for key, count in reads.items() if "codes/" in key}
    data = {
        key: count
        for key, count in chunks.items()
        if key.split("|")[0].rpartition("/")[2] not in INDEXES
    }
    assert set(data.values()) == {1}
    per_array = Counter(key.split("|")[0].removeprefix(str(run)) for key in data)
    shards = len(MODELS) * 3
    names = {name.rpartition("codes/")[2]: count for name, count in per_array.items()}
    for name in ("contrast/logit", "contrast/log_partition", "search/doc", "search/flops"):
        assert names[name] == shards
    for name in ("search/token", "search/logit", "search/log_partition", "search/score"):
        assert name not in names


def test_a_cube_of_100_gb_opens_by_its_metadata(tmp_path, reads):
    queries = 20_000
    sizes = {"model": 8, "query": queries, "beam": 7, "rank": 1000, "step": 8, "candidate": 2}
    text = {name: np.array(["x"] * 8) for name in ("family", "precision")}
    group = Group(
        name="codes",
        kind="codes",
        variables=CodesIdentifiers().variables,
        sizes=sizes,
        shard_queries=64,
        model={"model": np.array(list("abcdefgh")), "n_params": np.arange(1, 9), **text},
        query={"query": np.arange(queries).astype(str)},
        beam={"beam": np.array([1, 2, 5, 10, 20, 50, 100])},
        candidates={
            name: np.zeros((queries, 2), dtype)
            for name, dtype in (("doc", "i4"), ("is_positive", "?"), ("relevance", "i4"))
        },
    )
    create_cube(tmp_path / "cube.zarr", Template((group,), Origin("cube", {}), {}))
    seal_cube(tmp_path / "cube.zarr", 1, "digest")
    reads.clear()
    tree = genret_dask.open_cube(tmp_path)
    assert sum(node.nbytes for node in tree.subtree) > 100e9
    assert build_everything(tree)["recall@10"].shape == (8, queries, 7)
    assert arrays_of(reads) <= COORDINATES and sum(reads.values()) < 20


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_chunked_equals_eager(run, data):
    tree = genret_dask.open_cube(run)
    place = {"model": [6], "query": slice(data.draw(st.integers(2, 9))), "beam": [0, 2]}
    parts = tree.genret.search, tree.genret.contrast
    eager = [part.isel(place, missing_dims="ignore").load() for part in parts]
    chunked = [
        part.chunk({dim: data.draw(st.integers(1, n), dim) for dim, n in part.sizes.items()})
        for part in eager
    ]
    with dask.config.set(scheduler="sync"):
        found = reduce_queries(*chunked)
        xr.testing.assert_allclose(found, reduce_queries(*eager), rtol=1e-13)
    assert set(found) == {"cgl", "generation_loss", "flops", *MEASURES}


def test_the_walk_through_the_cube_runs(run, tmp_path, monkeypatch, capsys):
    """Every block of docs/analysis.md, in order, on a cube of our own with a baseline."""
    run = shutil.copytree(run, tmp_path / "run")
    queries = genret_dask.open_cube(run)["codes/search"]["query"].values.tolist()
    doc = np.zeros((len(queries), 1), np.int32)
    ranked = Ranked("bm25", "bm25", "fingerprint", doc, doc.astype(np.float32))
    write_baselines(run / "cube.zarr", [ranked], queries, {})
    seal_cube(run / "cube.zarr", 1, "digest")
    page = (Path(__file__).parents[1] / "docs" / "analysis.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 6
    names: dict = {}
    for block in blocks:
        block = block.replace("runs/pydoc", str(run)).replace("beam=100", "beam=30")
        block = block.replace("t5-micro", "t5-d").replace("llama-micro", "llama-c")
        exec(compile(block, "docs/analysis.md", "exec"), names)
    assert names["law"].points.law == "L(N)"
    assert names["joint"].points.axes == ("n", "d")
