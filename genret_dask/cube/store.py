"""Writing a cube: the template, whole shards, the seal.

Chunks carry zstd and a crc32c, empty ones are written too, and files are on the disk before
`write_shard` returns: what a marker then vouches for is there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from genret_dask.artefacts import fsync
from genret_dask.cube.schema import CONTRAST, COORDINATE_ATTRIBUTES, SEARCH, Group, Template
from genret_dask.errors import CubeError, GenretError, StaleError

FORMAT = 1


def create_cube(path: Path, template: Template) -> None:
    """Write metadata, coordinates and candidates; complete or absent, by one rename.

    Raises
    ------
    StaleError
        There is a cube already, made from other settings.
    """
    if path.exists():
        check_cube(path, template.attributes["fingerprint"])
        return
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    root = zarr.create_group(partial, zarr_format=3)
    root.attrs.update(
        {"Conventions": "genret-cube", "format": FORMAT, "sealed": False, **template.attributes}
    )
    for group in template.groups:
        _create_group(root.create_group(group.kind), group)
    _fsync_tree(partial)
    os.replace(partial, path)
    fsync(path.parent)


def _create_group(root: Any, template: Group) -> None:
    for name, variables in template.variables.items():
        group = root.create_group(name)
        for variable_name, variable in variables.items():
            group.create_array(
                variable_name,
                shape=template.shape(variable),
                chunks=template.chunks(variable),
                dtype=variable.dtype,
                fill_value=variable.fill,
                dimension_names=variable.dims,
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
                attributes={"units": variable.units, "long_name": variable.long_name},
            )
        for dim, coordinates in (("model", template.model), ("query", template.query)):
            for coordinate, values in coordinates.items():
                _write_array(group, coordinate, (dim,), values)
        names = sorted({*template.model, *template.query} - {"model", "query"})
        group.attrs["coordinates"] = " ".join(names)
    for coordinate, values in template.beam.items():
        _write_array(root[SEARCH], coordinate, ("beam",), values)
    for name, values in template.candidates.items():
        _write_array(root[CONTRAST], name, ("query", "candidate"), values)


def check_cube(path: Path, fingerprint: str) -> None:
    """Raise `StaleError` unless the cube was made from the settings of this fingerprint."""
    found = read_attributes(path).get("fingerprint")
    if found != fingerprint:
        raise StaleError(
            f"{path} was made by other settings (fingerprint {found})",
            expected=f"fingerprint {fingerprint}",
            fix="give the run another name, or remove the cube and its markers",
        )


def read_attributes(path: Path) -> dict[str, Any]:
    """The root attributes of a cube; `CubeError` when there is none."""
    try:
        return dict(zarr.open_group(path, mode="r").attrs)
    except Exception as error:  # Zarr takes metadata apart without looking at its types
        raise CubeError(
            f"{path} is not a cube: {type(error).__name__}",
            expected="a Zarr group that a sweep wrote",
            fix="remove it and its markers, and run the sweep again",
        ) from error


def write_shard(
    path: Path, kind: str, model: int, start: int, arrays: dict[str, dict[str, np.ndarray]]
) -> dict[str, str]:
    """Write one model's results for a shard of queries as whole chunks, durably.

    Parameters
    ----------
    model, start : int
        Row along `model`, and the shard's first row along `query`.
    arrays : dict of dataset name to dict of variable name to array[query, ...]

    Returns
    -------
    dict
        SHA-256 of each array's bytes, by `dataset/variable`.

    Raises
    ------
    GenretError
        The shard is not a whole chunk, or a shape is not the cube's.
    """
    kind_group: Any = zarr.open_group(path, mode="r+", zarr_format=3)[kind]
    digests, written = {}, []
    with zarr.config.set({"array.write_empty_chunks": True}):
        for dataset, variables in arrays.items():
            for name, values in variables.items():
                array = kind_group[dataset][name]
                region = (model, slice(start, start + len(values)))
                _require_whole_chunk(array, region[1], values, f"{dataset}/{name}")
                values = np.ascontiguousarray(values, dtype=array.dtype)
                array[region] = values
                digests[f"{dataset}/{name}"] = hashlib.sha256(values.tobytes()).hexdigest()
                key = array.metadata.encode_chunk_key(
                    (model, start // array.chunks[1], *(0,) * (array.ndim - 2))
                )
                written.append(path / kind / dataset / name / key)
    for file in written:
        fsync(file)
    for folder in sorted({parent for file in written for parent in file.parents}):
        if path in folder.parents:
            fsync(folder)
    return digests


def seal_cube(path: Path, shards: int, digest: str) -> None:
    """Mark a cube complete and consolidate its metadata.

    Parameters
    ----------
    shards : int
        How many shards it is made of.
    digest : str
        Hash over their markers.
    """
    root = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
    root.attrs.update({"sealed": True, "shards": shards, "digest": digest})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata is not in the v3 standard yet
        zarr.consolidate_metadata(path, zarr_format=3)


def _write_array(group: zarr.Group, name: str, dims: tuple[str, ...], values: np.ndarray) -> None:
    values = np.asarray(values)
    text = values.dtype.kind in "OUT"
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=tuple(max(1, size) for size in values.shape),
        dtype=str if text else values.dtype,
        fill_value="" if text else None,
        dimension_names=dims,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        attributes=dict(COORDINATE_ATTRIBUTES.get(name, {})),
    )
    array[...] = values.astype(object) if text else values


def _require_whole_chunk(array: zarr.Array, region: slice, values: np.ndarray, name: str) -> None:
    chunk, total = array.chunks[1], array.shape[1]
    whole = region.start % chunk == 0 and region.stop == min(region.start + chunk, total)
    if not whole or values.shape[1:] != array.shape[2:]:
        raise GenretError(
            f"{name}: shard {region.start}:{region.stop}, {values.shape}, is not a whole chunk",
            expected=f"{chunk} queries from a multiple of {chunk}, then {array.shape[2:]}",
        )


def _fsync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            fsync(Path(folder) / name)
        fsync(Path(folder))
