"""The small list of findings, a row each."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from distributed import Client, LocalCluster

import genret_dask
from genret_dask.cli import main
from genret_dask.cli.progress import ProgressBars, echo
from genret_dask.errors import InputError
from genret_dask.executors.dask import DaskExecutor
from genret_dask.fits import Fit, Points, Surfaces, better, compare_families, fit_over
from genret_dask.fits.frontier import frontier
from genret_dask.fits.series import means_of
from genret_dask.metrics.bootstrap import bootstrap_mean, interval
from genret_dask.monitoring.log import unit_of
from genret_dask.study.sweep import Study
from tests.findings.conftest import FEMTO, tiny_documents, tiny_spec, write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("small")
    spec = tiny_spec(
        write_tiny(root / "beir"),
        models=list(FEMTO.values()),
        training={"examples": 64, "batch_size": 16, "evaluations": 1},
    )
    study = Study(spec, runs=root)
    study.search()
    return study.folder


# --- values and intervals -------------------------------------------------------------------------


def metrics_of(recall: np.ndarray) -> xr.Dataset:
    """Metrics of queries, as `reduce_queries` gives them, of two models, two beams and a recall."""
    dims = ("model", "query", "beam")
    return xr.Dataset(
        {
            "cgl": (dims[:2], np.ones(recall.shape[:2])),
            "recall@10": (dims, recall),
            "flops": (dims, np.broadcast_to([1.0, 2.0], recall.shape)),
        },
        coords={
            "model": ["a", "b"],
            "query": np.arange(recall.shape[1]).astype(str),
            "beam": [1, 10],
            **{name: ("model", ["x", "y"]) for name in ("family",)},
            "precision": ("model", ["fp32"] * 2),
            "n_params": ("model", [1, 2]),
            "n_train": ("model", [3, 3]),
            "train_fraction": ("model", [1.0, 1.0]),
            "train_flops": ("model", [1.0, 2.0]),
        },
    )


@pytest.mark.parametrize("value", [0.0, 1.0, 1 / 3, 0.1, 0.7])
@pytest.mark.parametrize("queries", [3, 6, 49])
def test_an_interval_holds_its_value(value: float, queries: int):
    """`plan` and `compare` printed ``0 [1.1e-16, 3.3e-16]``."""
    values = metrics_of(np.full((2, queries, 2), value))
    means = means_of(values, draws=200)
    for choice in frontier(means):
        assert choice.recall.low <= choice.recall.value <= choice.recall.high
        assert choice.recall.value == pytest.approx(value, abs=1e-12)
    family = {name: values.assign_coords(family=("model", [name] * 2)) for name in ("x", "y")}
    between = family["y"].assign_coords(model=["c", "d"], n_params=("model", [1.3, 1.7]))
    both = means_of(xr.concat([family["x"], between], "model"), draws=200)
    records = [*better(values, "a", "b", draws=200), *compare_families(both)]
    assert {1.3, 1.7} <= {record.get("x") for record in records}
    for record in records:
        for name in ("first", "second", "difference"):
            one = record[name]
            assert one["low"] <= one["value"] <= one["high"], (record["metric"], name)
    if value == 0:
        assert {choice.recall.high for choice in frontier(means)} == {0.0}


def test_a_resampled_mean_of_equal_values_is_that_value():
    values = xr.DataArray(np.full(49, 1 / 3), dims="query")
    assert (bootstrap_mean(values, 300) == 1 / 3).all()
    assert interval(bootstrap_mean(values, 300)).values.tolist() == [1 / 3, 1 / 3]


def test_a_share_of_nothing_is_not_called_zero_percent():
    """What was written: 0 to 0% of the smallest y."""
    x, y = np.array([[1.0], [10.0], [100.0]]), np.array([3.0, 2.0, 1.0])
    draws = np.tile(y, (5, 1))
    asymptotes = np.array([0.0, 0, 0, 1e-9, 1e-9, 1e-9])
    laws = Surfaces(np.full((6, 1), 0.5), np.zeros((6, 1)), asymptotes, np.ones(6), 0)
    points = Points("L(N)", "made up", "loss", ("n",), x, y, draws)
    fit = Fit(points, laws.rows([0]), laws.rows(slice(1, None)), draws, "", "squares", 0)
    (found,) = (text for text in fit.warnings if "asymptote not" in text)
    assert found.endswith("from 0 to less than 1% of the smallest y")


# --- commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["status"], ["verify"], ["report"], ["metrics"], ["fit"], ["compare"], ["plan"],
        ["explain", "--query", "x", "--model", "m"], ["repair", "--cluster", "none.yaml"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_run_that_is_not_there_is_wrong_input(tmp_path, words: list[str]):
    result = CliRunner().invoke(main, [words[0], str(tmp_path / "none"), *words[1:]])
    assert result.exit_code == 2, result.output
    assert str(tmp_path / "none") in result.output and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--query", "x", "--top", "-3"], "-3"),
        (["--query", ""], "the query is empty"),
        (["--query", " \n"], "the query is empty"),
    ],
    ids=["top", "no query", "white space"],
)
def test_explain_refuses(run: Path, words: list[str], text: str):
    result = CliRunner().invoke(main, ["explain", str(run), "--model", "t5", *words])
    assert result.exit_code == 2 and text in result.output


def test_explain_says_that_a_beam_is_cut(run: Path):
    words = ["explain", str(run), "--model", "t5", "--query", "volcano", "--beam", "5000"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "beam 5000 is cut to the 40 documents" in result.stderr
    assert "t5, codes, beam 40: volcano" in result.stdout


# --- clusters -------------------------------------------------------------------------------------


def double(task: int, report: Any) -> int:
    return 2 * task


def test_a_cluster_that_adapts_from_none_gets_its_first_worker():
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        with Client(cluster) as client:
            done = DaskExecutor(client, lost_timeout=60).map(double, [1, 2], ["d-1", "d-2"])
    assert done == [2, 4]


# --- the terminal ---------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """As they stand on the screen in the end."""
        shown = []
        for line in self.getvalue().split("\n"):
            screen = ""
            for part in line.split("\r"):
                screen = part + screen[len(part) :]
            shown.append(screen.rstrip())
        return [line for line in shown if line]


@pytest.fixture
def terminal(monkeypatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    one = Terminal()
    logger = logging.getLogger("genret_dask")
    level, handlers = logger.level, list(logger.handlers)
    yield one
    logger.setLevel(level)
    logger.handlers[:] = handlers


def test_a_line_is_not_written_into_a_bar(terminal, monkeypatch):
    """What was printed into the open bar: the line of the peak memory."""
    monkeypatch.setattr(sys, "stderr", terminal)  # here, as pytest sets its own for each phase
    with ProgressBars(terminal) as bars:
        bars("search", 0, 10)
        bars("search", 4, 10)
        echo("peak memory  1 GiB")
        bars("search", 10, 10)
        echo("peak memory  2 GiB")
    first, bar, last = terminal.lines()
    assert (first, last) == ("peak memory  1 GiB", "peak memory  2 GiB")
    assert bar.startswith("search") and "100%" in bar


def test_a_warning_stands_above_the_bar(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    main.callback(0)  # sets logging up for this terminal
    with ProgressBars(terminal) as bars:
        bars("search", 4, 10)
        logging.getLogger("genret_dask.shards").warning("again")
        bars("search", 10, 10)
    first, bar = terminal.lines()
    assert first.endswith("WARNING genret_dask.shards: again")
    assert bar.startswith("search")


def test_stages_of_spans_have_bars_of_their_own(terminal):
    """And one name with another total is another bar; sums of shares cause no TqdmWarning."""
    with warnings.catch_warnings(), ProgressBars(terminal) as bars:
        warnings.simplefilter("error")
        for stage, total in (("spans of train", 0.3), ("spans of dev", 7), ("spans of dev", 3)):
            bars(stage, 0, total)
            bars(stage, total * (1 + 1e-15), total)
            bars(stage, total, total)
    assert [line.partition(":")[0] for line in terminal.lines()] == [
        "spans of train", "spans of dev", "spans of dev"
    ]  # fmt: skip
    assert unit_of("spans of train") == "queries"


# --- in Python ------------------------------------------------------------------------------------


def test_dir_has_the_public_names():
    script = "import genret_dask; print(set(genret_dask.__all__) <= set(dir(genret_dask)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "True\n"


def test_metrics_group_by_coordinates(run: Path):
    tree = genret_dask.open_cube(run)
    found = tree.genret.recall(10).mean("query").groupby("family").mean().compute()
    assert found["family"].values.tolist() == ["llama", "t5"]
    assert tree["codes/search"].variables["logit"].chunks  # still lazy


def test_metrics_of_queries_keep_their_texts(run: Path):
    found = genret_dask.open_cube(run).genret.per_query()
    assert found["text"].dims == ("query",)
    assert str(found["text"].values[0]).startswith("when was the ")


def test_a_row_leads_to_its_document(run: Path, tmp_path: Path):
    tree = genret_dask.open_cube(run)
    documents = tree["codes"].genret.documents()
    assert documents["text"].values.tolist() == tiny_documents()
    assert documents["id"].sel(doc=3).values == "d3" and set(documents) == {"id", "title", "text"}
    first = tree["codes/search"]["doc"].isel(model=0, query=0, beam=-1, rank=0).compute().item()
    assert documents["id"].sel(doc=first).values == f"d{first}"
    with pytest.raises(InputError, match="no collection at"):
        tree.genret.documents(tmp_path)
    other = xr.DataTree.from_dict({"codes/search": xr.Dataset(), "codes/contrast": xr.Dataset()})
    with pytest.raises(InputError, match="does not say where it was opened"):
        other.genret.documents()


def test_reprs_are_short(run: Path):
    values = xr.DataArray(
        np.random.default_rng(0).random((4, 9)) + np.array([[4.0], [3], [2], [1.5]]),
        dims=("model", "query"),
        coords={"n_params": ("model", [1e4, 1e5, 1e6, 1e7])},
        name="cgl",
    )
    text = repr(fit_over(values, "n_params"))
    assert len(text) < 200 and "1,000 draws" in text and "exponent" in text
    text = repr(genret_dask.open_cube(run).genret)
    assert text == "<genret accessor of codes: 2 model, 6 query, 3 beam>"
    codes = genret_dask.open_cube(run)["codes"]
    both = xr.DataTree(children={"codes": codes, "ngrams": codes.copy()})
    assert repr(both.genret) == "<genret accessor of codes, ngrams: 2 model, 6 query, 3 beam>"
    assert repr(xr.DataTree().genret) == "<genret accessor of no identifier kind: >"
