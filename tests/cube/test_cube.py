"""The cube's template, its write protocol, and how it opens."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
import zarr

from genret_dask import open_cube
from genret_dask.cube import store
from genret_dask.cube.schema import Group, Template
from genret_dask.cube.store import create_cube, seal_cube, unseal_cube, write_shard
from genret_dask.errors import CubeError, GenretError, InputError
from genret_dask.run.verification import shards_of
from genret_dask.specs.registry import entry
from genret_dask.storage.fingerprint import Origin

QUERIES = 5
KINDS = ("codes", "ngrams")


def make_template(fingerprint: str = "f") -> Template:
    sizes = {"model": 2, "query": QUERIES, "beam": 2, "rank": 3, "step": 2, "candidate": 4}
    groups = tuple(
        Group(
            name=kind,
            kind=kind,
            variables=entry("identifiers", kind)().variables,
            sizes={**sizes, "ngram": 3, "identifier": 2},
            shard_queries=2,
            model={"model": np.array(["a", "b"]), "n_params": np.array([10, 20])},
            query={
                "query": np.array([f"q{i}" for i in range(QUERIES)]),
                "text": np.array(["où", "x"] + [""] * 3),
            },
            beam={"beam": np.array([1, 3])},
            candidates={"doc": np.arange(QUERIES * 4, dtype=np.int32).reshape(QUERIES, 4)},
        )
        for kind in KINDS
    )
    return Template(groups, Origin("cube", {"seed": fingerprint}), {})


def make_arrays(template: Template, queries: int, seed: int, kind: str = "codes") -> dict:
    (group,) = (group for group in template.groups if group.kind == kind)
    rng = np.random.default_rng(seed)
    return {
        dataset: {
            name: (
                100 * rng.random((queries, *[group.sizes[dim] for dim in variable.dims[2:]]))
            ).astype(variable.dtype)
            for name, variable in variables.items()
        }
        for dataset, variables in group.variables.items()
    }


@pytest.fixture
def cube(tmp_path):
    template = make_template()
    path = tmp_path / "cube.zarr"
    create_cube(path, template)
    return path, template


def fill(path, template):
    written = {}
    for kind in KINDS:
        for model in range(2):
            for start in range(0, QUERIES, 2):
                queries, seed = min(2, QUERIES - start), 10 * model + start
                arrays = make_arrays(template, queries, seed, kind)
                write_shard(path, kind, model, start, arrays)
                written[kind, model, start] = arrays
    seal_cube(path, 12, "digest")
    return written


def test_what_is_written_is_read(cube):
    path, template = cube
    written = fill(path, template)
    tree = open_cube(path)
    for (kind, model, start), arrays in written.items():
        for dataset, variables in arrays.items():
            for name, values in variables.items():
                found = tree[f"{kind}/{dataset}"][name].values[model, start : start + 2]
                np.testing.assert_array_equal(found, values)
    search = tree["codes/search"]
    assert search["text"].values.tolist()[0] == "où"
    assert search["n_params"].values.tolist() == [10, 20]
    assert search["score"].attrs["units"] == "nat"
    assert tree.attrs["fingerprint"] == template.made_from.fingerprint


def test_plain_xarray_opens_it_without_a_warning(cube, recwarn):
    path, template = cube
    fill(path, template)
    with xr.open_datatree(path, engine="zarr", chunks={}) as tree:
        assert tree["codes/search"].to_dataset().sizes["query"] == QUERIES
    assert not [w for w in recwarn if "consolidated" in str(w.message)]


def test_one_dask_chunk_a_shard_and_nothing_read(cube):
    path, template = cube
    fill(path, template)
    score = open_cube(path)["codes/search"]["score"]
    assert score.chunks[:2] == ((1, 1), (2, 2, 1))
    shutil.rmtree(path / "codes" / "search" / "score" / "c")
    assert score.mean("query").dims == ("model", "beam", "rank")  # still lazy


def test_an_unsealed_cube_is_refused_unless_allowed(cube):
    path, _ = cube
    with pytest.raises(CubeError, match="not sealed"):
        open_cube(path)
    tree = open_cube(path, allow_unsealed=True)
    assert np.isnan(tree["codes/search"]["score"].values).all()
    assert (tree["codes/search"]["doc"].values == -1).all()


def test_no_cube_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no cube"):
        open_cube(tmp_path)


def test_a_chunk_that_a_sealed_cube_has_lost_is_an_error_not_nan(cube):
    path, template = cube
    fill(path, template)
    (path / "codes" / "search" / "score" / "c" / "1" / "1" / "0" / "0").unlink()
    score = open_cube(path)["codes/search"]["score"]
    assert np.isfinite(score[0].values).all()
    with pytest.raises(CubeError, match="lost its chunk codes/search/score/c/1/1/0/0"):
        score.mean("query").compute()


def test_the_seal_is_the_last_thing_written(cube, monkeypatch):
    path, template = cube
    written = []
    real = store.replace_file
    monkeypatch.setattr(
        store, "replace_file", lambda file, text: (written.append(file.name), real(file, text))
    )
    fill(path, template)
    assert written == ["seal.json", "zarr.json"]
    unseal_cube(path)
    with pytest.raises(CubeError, match="not sealed"):
        open_cube(path)


@pytest.mark.parametrize(("start", "queries"), [(1, 2), (0, 1), (2, 3), (4, 2)])
def test_part_of_a_chunk_is_refused(cube, start, queries):
    path, template = cube
    with pytest.raises(GenretError, match="not a whole chunk"):
        write_shard(path, "codes", 0, start, make_arrays(template, queries, 0))


def test_a_wrong_shape_is_refused(cube):
    path, template = cube
    arrays = make_arrays(template, 2, 0)
    arrays["search"]["score"] = arrays["search"]["score"][:, :, :2]
    with pytest.raises(GenretError, match="search/score"):
        write_shard(path, "codes", 0, 0, arrays)


def test_empty_chunks_are_files_and_a_flipped_byte_is_noticed(cube):
    path, template = cube
    arrays = make_arrays(template, 2, 0)
    arrays["search"]["score"][:] = np.nan
    write_shard(path, "codes", 0, 0, arrays)
    chunk = path / "codes" / "search" / "score" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)
    with pytest.raises(Exception, match="(?i)checksum"):
        zarr.open_group(path, mode="r")["codes/search/score"][0, :2]


@pytest.mark.parametrize("order", [KINDS, KINDS[::-1]])
def test_shards_stand_in_the_order_of_the_study_as_in_the_seal(tmp_path, order):
    template = make_template()
    spec = {"identifiers": [{"kind": kind} for kind in order]}
    create_cube(tmp_path / "cube.zarr", replace(template, attributes={"spec": spec}))
    kinds = dict.fromkeys(shard.kind for shard in shards_of(tmp_path / "cube.zarr"))
    assert tuple(kinds) == order
