"""The page: well-formed, closed in itself, escaped, equal to the records, for any run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.cube.open import kinds, open_cube
from genret_dask.fits import fit_records, published_points
from genret_dask.monitoring.log import RunLog
from genret_dask.report import is_reported, write_report
from genret_dask.report.text import clean, decimal, estimate
from tests.fits import conftest as laws
from tests.report.conftest import DRAWS, Page, read_page, rewrite

pytestmark = pytest.mark.usefixtures("rough_fits")


@pytest.fixture(scope="module")
def page(published_html) -> Page:
    return Page(published_html)


def test_every_figure_is_there_described_and_a_file(page, both_kinds):
    files = {path.stem for path in (both_kinds / "report").glob("*.svg")}
    for kind in ("codes", "ngrams"):
        assert files >= {
            f"{kind}-{name}"
            for name in (
                "cgl-n", "cgl-d", "cgl-c", "recall-n", "recall-d", "recall-t5-c", "recall-llama-c",
                "joint-cgl", "joint-recall", "families-cgl-n", "families-cgl-d",
                "families-recall-n", "families-recall-d", "families-recall-flops", "frontier",
            )
        }  # fmt: skip
    assert files >= {"kinds-codes-ngrams-cgl", "kinds-codes-ngrams-recall"}
    assert len(page.figures) == len(files)
    for figure in page.figures:
        assert figure["role"] == "img" and len(figure["aria-label"]) > 40
    for name in files:
        root = ElementTree.parse(both_kinds / "report" / f"{name}.svg").getroot()
        assert "var(" not in ElementTree.tostring(root, "unicode")
        assert root.find("{http://www.w3.org/2000/svg}desc").text


def test_the_page_refers_to_nothing_but_itself(page, both_kinds):
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "img", "object", "embed")
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            target = attributes.get(name)
            if target and not target.startswith("data:"):
                assert target.startswith("#") and target[1:] in ids, (tag, target)
    html = (both_kinds / "report" / "index.html").read_text("utf-8")
    for target in re.findall(r"url\(#?([^)]*)\)", html):
        assert target in ids
    assert "@import" not in html
    assert not re.search(r"#0[ab]000\d", html), "a place-holder colour was left"


def test_the_table_of_laws_is_that_of_the_records(page, both_kinds):
    (kind, search, contrast), _ = kinds(open_cube(both_kinds))
    records = fit_records(kind, search, contrast, DRAWS, 1)
    rows = [cells for attributes, cells in page.rows if attributes.get("data-of") == "table"]
    rows = [cells for cells in rows if cells[0] == kind]
    assert len(rows) == len(records) > 10
    for record, cells in zip(records, rows, strict=True):
        one = len(record["axes"]) == 1
        exponents = " ".join(
            ("" if one else f"{axis.upper()} ") + estimate(value)
            for axis, value in record["exponents"].items()
        )
        metric = record["metric"].replace("cgl", "CGL")
        assert cells[:5] == [
            record["identifiers"], record["law"], record["series"], metric, exponents
        ]  # fmt: skip
        assert cells[6:9] == [
            estimate(record["asymptote"]), decimal(record["r2"]), str(record["n"])
        ]  # fmt: skip
    shown = {cell for a, (cell, *_) in page.rows if a.get("class") == "warnings" for cell in [cell]}
    for record in records:
        for warning in record["warnings"]:
            assert any(clean(warning) in text for text in shown)


def test_published_points_are_laid_over_on_demand_and_marked(page, fresh_cube):
    assert not any("Published" in text for text in read_page(fresh_cube).text)
    rows = [cells for a, cells in page.rows if a.get("data-of") == "published"]
    assert [cells[2] for cells in rows] == [points.series for points in published_points()]
    assert "0.402 [" in rows[0][4]
    assert any("arXiv 2503.18941" in text for text in page.text)
    assert any("MINDER t5*" in text for text in page.text)


def test_texts_and_names_are_escaped(fresh_cube):
    evil = "<script>alert('x')</script>&\"'$\\frac$\x00\x1b " + "long " * 200
    rewrite(fresh_cube, "codes", "search", "text", lambda old: np.full_like(old, evil))
    for dataset in ("search", "contrast"):
        for name in ("model", "family"):
            rewrite(
                fresh_cube, "codes", dataset, name,
                lambda old: np.array([f"<b>&'{one}\"$^{'x' * 120}" for one in old], dtype=object),
            )  # fmt: skip
    found = read_page(fresh_cube)
    assert not {"script", "b"} & {tag for tag, _ in found.elements}
    assert any("<script>alert('x')</script>&\"'" in text for text in found.text)
    assert found.figures
    for path in (fresh_cube / "report").glob("*.svg"):
        ElementTree.parse(path)
        assert re.fullmatch(r"[a-z0-9-]+\.svg", path.name) and len(path.name) < 100


def test_a_run_of_one_model_is_a_page_without_laws_over_n(tmp_path, monkeypatch):
    monkeypatch.setattr(laws, "MODELS", laws.MODELS[:1])
    laws.write_law_cube(tmp_path / "cube.zarr", queries=16)
    found = read_page(tmp_path)
    names = {path.stem for path in (tmp_path / "report").glob("*.svg")}
    assert names == {"codes-recall-t5-c", "codes-frontier"}
    assert {cells[0] for a, cells in found.rows if a.get("data-of")} == {"L(C)"}


def test_a_single_search_of_a_single_query_is_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(laws, "MODELS", laws.MODELS[:1])
    monkeypatch.setattr(laws, "BEAMS", (1,))
    laws.write_law_cube(tmp_path / "cube.zarr", queries=1)
    found = read_page(tmp_path)
    assert any("too few models" in text for text in found.text)
    assert len(found.figures) == 1


@pytest.mark.parametrize("lost", ["one model", "everything", "one query", "flops"])
def test_values_that_are_missing_leave_a_page(fresh_cube, lost):
    def gap(old: np.ndarray) -> np.ndarray:
        where = {"one model": 1, "one query": (slice(None), 3)}.get(lost, slice(None))
        old[where] = np.nan
        return old

    if lost != "flops":
        rewrite(fresh_cube, "codes", "contrast", "logit", gap)
    if lost != "one query":
        rewrite(fresh_cube, "codes", "search", "flops", gap)
    found = read_page(fresh_cube)
    text = " ".join(found.text)
    assert "nan" not in re.findall(r"[a-z]+", text)
    assert ("No model has a CGL" in text) == (lost == "everything")


@pytest.mark.parametrize("doc", [7, 0, -1])
def test_recalls_of_nought_and_of_one_are_drawn(fresh_cube, doc):
    rewrite(fresh_cube, "codes", "search", "doc", lambda old: np.where(old >= 0, doc, old))
    assert read_page(fresh_cube).figures


def test_worst_and_best_queries_are_those_of_the_cube(page, both_kinds):
    from genret_dask.metrics import cgl

    contrast = open_cube(both_kinds)["codes/contrast"].to_dataset()
    losses = cgl(contrast).compute()
    best = int(losses.mean("query").argmin())
    order = losses.isel(model=best).to_series().sort_values()
    cells = [cells for _, cells in page.rows if re.fullmatch(r"q\d+", cells[0])]
    assert [one[0] for one in cells[:8]] == order.index[::-1][:8].tolist()
    assert [one[0] for one in cells[8:16]] == order.index[:8].tolist()
    assert cells[0][1] == f"question {cells[0][0][1:]}"
    assert cells[0][2] == decimal(float(order.iloc[-1]))


def test_provenance_tells_what_was_recorded(fresh_cube):
    for _ in range(2):
        log = RunLog(fresh_cube)
        log("machines", machines=[{"workers": 2, "threads": 4, "processor": "Abacus 9000"}])
        log.stage = "search"
        log("stage_ended", seconds=90.0, done=1, total=1)
    folder = fresh_cube / "checkpoints" / "codes" / "t5-a"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps({"seconds": 42.0, "dev_loss": 1.5}))
    found = read_page(fresh_cube)
    rows = {cells[0]: cells for _, cells in found.rows}
    assert rows["search"][1:3] == ["3 min 0 s", "12 min 0 s"]
    assert rows["train"][1:3] == ["not recorded", "42 s"]
    assert "42 s" in rows["t5-a"] and "1.5" in rows["t5-a"]
    assert any("Abacus 9000" in text for text in found.text)


def test_a_page_is_known_until_its_cube_changes(fresh_cube):
    assert not is_reported(fresh_cube)
    write_report(fresh_cube, draws=5)
    assert is_reported(fresh_cube)
    from genret_dask.cube.store import seal_cube

    seal_cube(fresh_cube / "cube.zarr", 1, "another digest")
    assert not is_reported(fresh_cube)


def test_the_command_prints_the_path_and_refuses_what_is_no_run(fresh_cube, tmp_path):
    result = CliRunner().invoke(main, ["report", str(fresh_cube), "--draws", "5"])
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.strip()) == fresh_cube / "report" / "index.html"
    refused = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert refused.exit_code == 2 and "there is no cube" in refused.output
    assert "Traceback" not in refused.output


def test_figures_are_the_same_for_the_same_cube(fresh_cube):
    def drawn() -> dict[str, bytes]:
        write_report(fresh_cube, draws=2)
        return {path.name: path.read_bytes() for path in (fresh_cube / "report").glob("*.svg")}

    assert drawn() == drawn()
