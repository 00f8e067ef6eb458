"""Documents that are added to a run's: their identifiers, and what is found of both."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from genret_dask import cli
from genret_dask.cube.open import open_cube
from genret_dask.datasets import stored
from genret_dask.errors import InputError
from genret_dask.identifiers import read_codes
from genret_dask.identifiers.ngrams import read_index
from genret_dask.metrics.apart import apart

CLUSTER = """version: 1
module: dask.distributed
class: LocalCluster
kwargs: {n_workers: 1, threads_per_worker: 1, processes: false, dashboard_address: null}
"""
NEW = 5


@pytest.fixture(scope="module")
def run(toy):
    return toy / "serial" / "toy"


@pytest.fixture
def cluster(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER)
    return file


def lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records))


def added_folder(folder):
    """New documents, and a test query for each."""
    texts = [f"an added text of number {row} with words {'x' * row}" for row in range(NEW)]
    lines(folder / "corpus.jsonl", [{"_id": f"new{i}", "text": t} for i, t in enumerate(texts)])
    lines(
        folder / "queries.jsonl", [{"_id": f"nq{i}", "text": t[:20]} for i, t in enumerate(texts)]
    )
    qrels = "query-id\tcorpus-id\tscore\n" + "".join(f"nq{i}\tnew{i}\t1\n" for i in range(NEW))
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def add(*arguments):
    return CliRunner().invoke(cli.main, ["add", *map(str, arguments)])


def test_documents_and_queries_are_added_and_told_apart(run, tmp_path, cluster):
    result = add(
        run, added_folder(tmp_path / "new"), "--cluster", cluster, "--runs", tmp_path / "runs"
    )
    assert result.exit_code == 0, result.output
    grown = tmp_path / "runs" / "toy-grown"
    before = stored.read_artefact(run / "collection")
    collection = stored.read_artefact(grown / "collection")
    assert len(collection) == len(before) + NEW
    assert collection.document_ids[: len(before)] == before.document_ids

    old, new = (read_codes(one / "identifiers" / "codes") for one in (run, grown))
    assert (new.codes[: len(before)] == old.codes).all() and new.level_sizes == old.level_sizes
    assert len(np.unique(new.codes, axis=0)) == len(collection)
    assert (run / "checkpoints/codes/t5/model.safetensors").samefile(
        grown / "checkpoints/codes/t5/model.safetensors"
    )

    tree = open_cube(grown)
    masks = apart(tree["codes/contrast"].to_dataset(), tree.attrs)
    names = tree["codes/contrast"]["query"].values
    assert {str(name) for name in names[masks["added"]]} == {f"nq{i}" for i in range(NEW)}
    assert (masks["before"] ^ masks["added"]).all()
    found = xr.open_zarr(grown / "cube.zarr", group="codes/search")["doc"].values
    assert (found >= len(before)).any()
    (index,) = (grown / "identifiers" / "ngrams").iterdir()
    assert read_index(index).corpus == collection.content_hash

    told = CliRunner().invoke(cli.main, ["metrics", str(grown), "--apart", "--json"])
    records = json.loads(told.stdout)
    assert {one["documents"] for one in records} == {"before", "added"}
    counts = {one["documents"]: one["queries"] for one in records}
    assert counts == {"before": int(masks["before"].sum()), "added": NEW}
    bm25 = {one["documents"]: one["recall@10"]["mean"] for one in records if one.get("baseline")}
    assert bm25["added"] == 1 and 0 < bm25["before"] <= 1
    assert "added" in result.stdout and "before" in result.stdout


def test_a_file_of_documents_alone(run, tmp_path, cluster):
    folder = added_folder(tmp_path / "new")
    options = ["--cluster", cluster, "--runs", tmp_path / "runs", "--name", "more"]
    result = add(run, folder / "corpus.jsonl", *options)
    assert result.exit_code == 0, result.output
    assert "before" in result.stdout and "no query asks for an added document" in result.stdout
    assert (tmp_path / "runs" / "more" / "report" / "index.html").is_file()


def test_what_cannot_be_added_is_refused(run, tmp_path, cluster):
    options = ["--cluster", cluster, "--runs", tmp_path / "runs"]
    lines(tmp_path / "twice.jsonl", [{"_id": "d0", "text": "x"}])
    known = stored.read_artefact(run / "collection").document_ids[0]
    lines(tmp_path / "twice.jsonl", [{"_id": known, "text": "x"}])
    result = add(run, tmp_path / "twice.jsonl", *options)
    assert result.exit_code == 2 and f"document id {known!r} again" in result.stderr
    result = add(run, tmp_path / "missing.jsonl", *options)
    assert result.exit_code == 2 and "missing.jsonl" in result.stderr
    result = add(tmp_path, tmp_path / "twice.jsonl", *options)
    assert result.exit_code == 2 and "no spec.json" in result.stderr
    assert "Traceback" not in result.output


def test_a_run_to_which_nothing_was_added_has_nothing_to_tell_apart(run):
    result = CliRunner().invoke(cli.main, ["metrics", str(run), "--apart"])
    assert result.exit_code == 2 and "nothing was added" in result.stderr
    with pytest.raises(InputError):
        apart(open_cube(run)["codes/contrast"].to_dataset(), {})
