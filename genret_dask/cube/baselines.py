"""The cube's group `baselines`: what something else than a model ranks for the same queries.

It has a group for each baseline, with `doc` and `score` over (query, rank). They are no shards, and
no part of what a cube is made from: the seal vouches for them, and a finished cube can get more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from genret_dask.cube.schema import BASELINES
from genret_dask.cube.store import (
    ROOT,
    read_attributes,
    store_at,
    sync_files,
    unseal_cube,
    write_array,
)
from genret_dask.storage.places import files_in, is_local, remove, replace_file

_ROWS = 2**13  # queries of a chunk
_MADE_FROM = "made_from"


@dataclass(frozen=True)
class Ranked:
    """The rankings of a baseline, as the cube keeps them.

    Attributes
    ----------
    name, kind : str
    fingerprint : str
        Of all that they were made from.
    doc : int32[queries, depth]
        Rows of the collection, -1 being none.
    score : float32[queries, depth]
    """

    name: str
    kind: str
    fingerprint: str
    doc: np.ndarray
    score: np.ndarray


def baselines_in(path: Path) -> dict[str, str]:
    """Return the fingerprint of each baseline of a cube, by its name."""
    if not (path / BASELINES / ROOT).is_file():
        return {}
    return dict(read_attributes(path / BASELINES).get(_MADE_FROM) or {})


def write_baselines(
    path: Path, ranked: Iterable[Ranked], queries: Sequence[str], spec: dict[str, Any]
) -> None:
    """Put baselines into a cube in the place of those that it has; it is unsealed then.

    Parameters
    ----------
    queries : sequence of str
        Their ids, those of the cube.
    spec : dict
        Of the study that has these baselines, as JSON values.
    """
    unseal_cube(path)
    remove(path / BASELINES)
    made_from: dict[str, str] = {}
    root: Any = zarr.open_group(store_at(path), mode="r+", zarr_format=3, use_consolidated=False)
    with zarr.config.set({"array.write_empty_chunks": True}):
        for one in ranked:
            facts = {"kind": one.kind, "fingerprint": one.fingerprint}
            group = root.create_group(f"{BASELINES}/{one.name}", attributes=facts)
            write_array(group, "query", ("query",), np.array(queries))
            for name, values in (("doc", one.doc), ("score", one.score)):
                write_array(group, name, ("query", "rank"), values, rows=_ROWS)
            made_from[one.name] = one.fingerprint
    if made_from:
        root[BASELINES].attrs.update({_MADE_FROM: made_from})
    if is_local(path):
        sync_files(path, [path / BASELINES / name for name in files_in(path / BASELINES)])
    content = json.loads((path / ROOT).read_bytes())
    content["attributes"]["spec"] = spec
    replace_file(path / ROOT, (json.dumps(content, indent=1) + "\n").encode())


def rankings_of(tree: xr.DataTree) -> xr.Dataset | None:
    """Return the baselines of a cube as a search dataset, lazily; None where it has none.

    Returns
    -------
    xarray.Dataset
        `doc` and `score` over (model, query, beam, rank): `model` has the baselines' names, and the
        only `beam` is the number of documents that each ranks. `kind` is along `model`.
    """
    found = tree.root.children.get(BASELINES)
    if found is None or not found.children:
        return None
    names = found.attrs.get(_MADE_FROM) or found.children  # in the order of the study
    datasets = {str(name): found[str(name)].to_dataset() for name in names}
    joined = xr.concat(
        [one[["doc", "score"]].expand_dims(model=[name]) for name, one in datasets.items()],
        "model",
        combine_attrs="drop",
    )
    kinds = [str(one.attrs.get("kind")) for one in datasets.values()]
    joined = joined.expand_dims(beam=[joined.sizes["rank"]]).assign_coords(kind=("model", kinds))
    return joined.transpose("model", "query", "beam", "rank")
