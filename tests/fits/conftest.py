"""A cube on the disk whose losses and recalls follow known laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from genret_dask.cube.schema import Group, Template
from genret_dask.cube.store import create_cube, seal_cube, write_shard
from genret_dask.metrics.queries import reduce_queries
from genret_dask.specs.registry import entry
from genret_dask.storage.fingerprint import Origin

BEAMS = (1, 3, 10, 30)
# name, family, N, D, fraction
MODELS = (
    ("t5-a", "t5", 1e4, 8000, 1.0),
    ("t5-b", "t5", 1e5, 8000, 1.0),
    ("t5-c-d0.1", "t5", 1e6, 800, 0.1),
    ("t5-c-d0.3", "t5", 1e6, 2400, 0.3),
    ("t5-c", "t5", 1e6, 8000, 1.0),
    ("t5-d", "t5", 1e7, 8000, 1.0),
    ("llama-a", "llama", 2e4, 8000, 1.0),
    ("llama-b-d0.1", "llama", 2e5, 800, 0.1),
    ("llama-b-d0.3", "llama", 2e5, 2400, 0.3),
    ("llama-b", "llama", 2e5, 8000, 1.0),
    ("llama-c", "llama", 2e6, 8000, 1.0),
)


def true_loss(n, d, family):
    """The positive's loss: an additive law, llama a tenth below."""
    return ((1e3 / n) ** 0.4 + (20 / d) ** 0.5 + 0.3) * (0.9 if family == "llama" else 1.0)


def true_error(n, d, ratio):
    """1 - recall@10: L(N,D,C) with C / N as its third axis."""
    return ((100 / n) ** (0.3 / 0.5) + 20 / d + (2 / ratio) ** (0.6 / 0.5)) ** 0.5 + 0.1


def write_law_cube(path: Path, queries: int = 40, shard: int = 40, kind: str = "codes") -> Path:
    """A sealed cube: 5 candidates, one of them relevant, 12 ranks, two steps."""
    rng = np.random.default_rng(0)
    names, families, n, d, fraction = (np.array(column) for column in zip(*MODELS, strict=True))
    sizes = {
        "model": len(MODELS), "query": queries, "beam": len(BEAMS), "rank": 12, "step": 2,
        "candidate": 5, "ngram": 12, "identifier": 2,
    }  # fmt: skip
    candidates = {
        "doc": np.tile(np.arange(5, dtype=np.int32), (queries, 1)),
        "is_positive": np.tile(np.arange(5) == 0, (queries, 1)),
        "relevance": np.tile((np.arange(5) == 0).astype(np.int32), (queries, 1)),
    }
    group = Group(
        name=kind,
        kind=kind,
        variables=entry("identifiers", kind)().variables,
        sizes=sizes,
        shard_queries=shard,
        model={
            "model": names,
            "family": families,
            "n_params": n.astype(np.int64),
            "n_train": d.astype(np.int64),
            "train_fraction": fraction,
            "train_flops": 600.0 * n * d,
            "precision": np.array(["fp32"] * len(names)),
        },
        query={
            "query": np.array([f"q{row}" for row in range(queries)]),
            "text": np.array([f"question {row}" for row in range(queries)]),
        },
        beam={"beam": np.array(BEAMS)},
        candidates=candidates,
    )
    create_cube(path, Template((group,), Origin("cube", {}), {}))
    hard, luck = rng.uniform(0.8, 1.2, queries), rng.random(queries)
    flops = 10.0 * n[:, None] * np.array(BEAMS)
    error = true_error(n[:, None], d[:, None], flops / n[:, None])
    loss = np.array([true_loss(*row) for row in zip(n, d, families, strict=True)])
    shards = 0
    for model in range(len(MODELS)):
        for start in range(0, queries, shard):
            rows = np.arange(start, min(start + shard, queries))
            arrays = {
                dataset: {
                    name: np.full(
                        (len(rows), *(sizes[dim] for dim in variable.dims[2:])),
                        variable.fill,
                        variable.dtype,
                    )
                    for name, variable in variables.items()
                }
                for dataset, variables in group.variables.items()
            }
            contrast, search = arrays["contrast"], arrays["search"]
            contrast["logit"][:] = 0
            contrast["log_partition"][:] = 3.0
            scatter = rng.uniform(0.95, 1.05, (len(rows), 1))
            positive = loss[model] * hard[rows, None] * scatter
            partition = contrast["log_partition"]
            partition[:, 0] = positive.reshape(len(rows), *(1,) * (partition.ndim - 2))
            own = (luck[rows, None] + rng.uniform(0, 0.1, (len(rows), 1))) % 1
            search["doc"][..., 0] = np.where(own > error[model], 0, 7)
            search["flops"][:] = flops[model]
            search["score"][..., 0] = -1
            write_shard(path, kind, model, start, arrays)
            shards += 1
    seal_cube(path, shards, "digest")
    return path


@pytest.fixture(scope="session")
def law_cube(tmp_path_factory) -> Path:
    """A run directory with such a cube."""
    run = tmp_path_factory.mktemp("laws")
    write_law_cube(run / "cube.zarr")
    return run


@pytest.fixture(scope="session")
def law_values(law_cube) -> xr.Dataset:
    """The metrics of each of its queries."""
    with xr.open_datatree(law_cube / "cube.zarr", engine="zarr", chunks={}) as tree:
        return reduce_queries(
            *(tree[f"codes/{name}"].to_dataset() for name in ("search", "contrast"))
        )
