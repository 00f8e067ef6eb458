"""Laws over the size of the corpus, of runs whose values are known or that are swept here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.datasets import BeirDataset
from genret_dask.datasets.collection import Qrels
from genret_dask.errors import InputError
from genret_dask.fits import fit_over_documents
from genret_dask.fits.over_documents import Run
from genret_dask.kinds import AtomicIdentifiers
from genret_dask.specs import ModelSpec, TrainingSpec
from genret_dask.study.sweep import Study
from tests.conftest import make_collection, write_beir
from tests.runs import TINY, make_spec

SIZES = (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
QUERIES = 60


def values_of(documents: float, queries=range(QUERIES), models=("a", "b")) -> xr.Dataset:
    """Recall falls as (50 / M)^0.4 + 0.2 at the widest beam, CGL rises as (M / 1e7)^0.3 + 0.1."""
    rng = np.random.default_rng(0)
    hard = 1 + 0.05 * rng.standard_normal(QUERIES)[list(queries)]
    shape = (len(models), len(hard), 2)
    recall = np.broadcast_to(hard[:, None] * [0.05, (50 / documents) ** 0.4 + 0.2], shape)
    cgl = np.broadcast_to(hard * ((documents / 1e7) ** 0.3 + 0.1), shape[:2])
    numbers = {name: ("model", np.ones(len(models))) for name in ("train_fraction", "train_flops")}
    return xr.Dataset(
        {
            "recall@10": (("model", "query", "beam"), recall),
            "flops": (("model", "query", "beam"), np.ones(shape)),
            "cgl": (("model", "query"), cgl),
        },
        coords={
            "model": list(models),
            "query": [f"q{row}" for row in queries],
            "beam": [1, 10],
            "family": ("model", ["t5"] * len(models)),
            "precision": ("model", ["fp32"] * len(models)),
            "n_params": ("model", np.full(len(models), 1000)),
            "n_train": ("model", np.full(len(models), 500)),
            **numbers,
        },
    )


def runs(sizes=SIZES, spec=None, **options) -> list[Run]:
    return [
        Run(int(size), {"codes": values_of(size, **options)}, spec or {"seed": 0}) for size in sizes
    ]


def test_the_laws_of_each_model_are_recovered():
    found = fit_over_documents(runs(), draws=50)
    assert [(fit.points.law, fit.points.series, fit.points.metric) for fit in found] == [
        (law, model, metric)
        for model in ("a", "b")
        for law, metric in (("L(M)", "recall@10"), ("L(1/M)", "cgl"))
    ]
    mean = values_of(1e3)["cgl"].mean().item() / ((1e3 / 1e7) ** 0.3 + 0.1)
    for fit, exponent, floor in zip(found, (0.4, 0.3) * 2, (0.2, 0.1) * 2, strict=True):
        (axis,) = fit.points.axes
        assert fit.exponents[axis].value == pytest.approx(exponent, rel=1e-3)
        assert fit.exponents[axis].low - 1e-3 < exponent < fit.exponents[axis].high + 1e-3
        assert fit.asymptote.value == pytest.approx(floor * mean, rel=1e-3)
        assert fit.n == len(SIZES) and fit.record()["identifiers"] == "codes"


def test_queries_beams_and_models_are_those_that_runs_have_in_common():
    some = runs(SIZES[:4], queries=range(0, 40)) + runs(SIZES[4:], queries=range(20, 40))
    values = some[1].values["codes"]
    some[1] = some[1]._replace(values={"codes": values.isel(beam=[0])})
    some[2] = some[2]._replace(values={"codes": values_of(SIZES[2], range(0, 40), ("a",))})
    found = {(fit.points.series, fit.points.law): fit.points for fit in fit_over_documents(some)}
    shared = [f"q{row}" for row in range(20, 40)]
    for model in ("a", "b"):
        having = [run for run in some if model in run.values["codes"].model]
        parts = [run.values["codes"].sel(model=model, query=shared) for run in having]
        sizes = [run.documents for run in having]
        assert found[model, "L(M)"].x[:, 0].tolist() == sizes
        expected = [part["recall@10"].sel(beam=1).mean().item() for part in parts]
        np.testing.assert_allclose(found[model, "L(M)"].y, expected)
        np.testing.assert_allclose(found[model, "L(1/M)"].x[:, 0], 1 / np.array(sizes))
        np.testing.assert_allclose(
            found[model, "L(1/M)"].y, [part["cgl"].mean().item() for part in parts]
        )


def test_other_settings_that_differ_are_told():
    first, *others = runs(spec={"seed": 0, "name": "a", "training": {"examples": 5}})
    alike = [one._replace(spec={**one.spec, "name": "b"}) for one in others]
    assert not any("differ" in one for one in fit_over_documents([first, *alike])[0].warnings)
    changed = [one._replace(spec={**one.spec, "training": {"examples": 6}}) for one in others]
    warnings = fit_over_documents([first, *changed])[0].warnings
    assert "the runs differ in training.examples" in warnings


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (runs([10, 10]), "all runs have 10 documents"),
        (runs([10], queries=[1]) + runs([20], queries=[2]), "of which they have 0 in common"),
        (runs([10], queries=[1, 2]) + runs([20], queries=[2, 3]), "they have 1 in common"),
        (runs(spec={"models_from": "runs/other"}), "searched the models of another run"),
        (runs([10], models=["a"]) + runs([20], models=["b"]), "no model is in runs of several"),
    ],
)
def test_runs_that_have_nothing_in_common_are_refused(found, message):
    with pytest.raises(InputError, match=message):
        fit_over_documents(found)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> list[Path]:
    """Three runs of a study of 40 documents, that differ in how many of them are kept."""
    root = tmp_path_factory.mktemp("over")
    collection = make_collection()
    test = collection.qrels["test"]
    few = Qrels.from_rows(*(one[:8] for one in (test.query, test.document, test.relevance)))
    qrels = {**collection.qrels, "dev": Qrels.from_rows([], []), "test": few}
    write_beir(replace(collection, qrels=qrels), root / "beir")
    found = []
    for documents in (10, 20, 40):
        spec = make_spec(
            root,
            name=f"m{documents}",
            dataset=BeirDataset(path=root / "beir", documents=documents),
            identifiers=(AtomicIdentifiers(),),
            models=(ModelSpec(family="llama", config=TINY["llama"], name="m"),),
            training=TrainingSpec(examples=64, batch_size=16, evaluations=1),
        )
        Study(spec, runs=root / "runs").search()
        found.append(root / "runs" / f"m{documents}")
    return found


def ask(*words: object):
    return CliRunner().invoke(main, ["fit", *map(str, words)])


def test_the_command_joins_runs(swept, tmp_path):
    done = ask(*swept, "--over", "documents", "--draws", 20, "--json")
    assert done.exit_code == 0, done.output
    records = json.loads(done.stdout)
    assert {(one["law"], one["metric"], one["n"]) for one in records} == {
        ("L(M)", "recall@10", 3),
        ("L(1/M)", "cgl", 3),
    }
    assert not any("runs differ" in line for one in records for line in one["warnings"])
    table = ask(*swept, "--over", "documents", "--draws", 20, "--metric", "mrr@10").stdout
    assert "L(M)" in table and "mrr@10" in table and "1/M" in table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((0, 1), "several runs and --over documents go together"),
        ((0, "--over", "documents"), "several runs and --over documents go together"),
        ((0, 0, "--over", "documents"), "a run is named twice"),
    ],
)
def test_other_calls_are_refused(swept, words, message):
    done = ask(*(swept[one] if isinstance(one, int) else one for one in words))
    assert done.exit_code == 2 and message in done.output
