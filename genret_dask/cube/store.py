"""Writing a cube: the template, whole shards, the seal.

Chunks carry zstd and a crc32c, empty ones are written too, and files are on the disk, or
acknowledged by the object store, before `write_shard` returns: what a marker then vouches for is
there. The seal vouches for the rest: metadata, coordinates, and the markers themselves.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import FsspecStore, LocalStore

from genret_dask.cube.schema import (
    CONTRAST,
    COORDINATE_ATTRIBUTES,
    SEARCH,
    Group,
    Template,
)
from genret_dask.errors import CubeError, GenretError
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import (
    files_in,
    fsync,
    is_local,
    place_of,
    remove,
    replace_file,
    staged,
    unwritable,
)
from genret_dask.storage.records import dump_record

FORMAT = 3
ROOT = "zarr.json"


def store_at(path: Path | str, *, read_only: bool = False) -> Any:
    """The Zarr store of a folder of this machine or of an object store."""
    path = place_of(path)
    if is_local(path):
        return LocalStore(path, read_only=read_only)
    options = {**getattr(path, "storage_options", {}), "asynchronous": True}
    return FsspecStore.from_url(str(path), storage_options=options, read_only=read_only)


def is_cube(path: Path, made_from: Origin) -> bool:
    """Whether there is a cube, made from these settings."""
    return (path / ROOT).is_file() and (
        read_attributes(path).get("fingerprint") == made_from.fingerprint
    )


def create_cube(path: Path, template: Template) -> None:
    """Write metadata, coordinates and candidates; complete or absent."""
    with staged(path, ROOT) as folder:
        write_template(folder, template)


def write_template(folder: Path, template: Template) -> None:
    """Write the cube without its shards into an empty folder of this machine."""
    root = zarr.create_group(folder, zarr_format=3)
    attributes = {**template.made_from.record(), **template.attributes}
    root.attrs.update(
        {"Conventions": "genret-cube", "format": FORMAT, "sealed": False, **attributes}
    )
    with zarr.config.set({"array.write_empty_chunks": True}):
        for group in template.groups:
            _create_group(root.create_group(group.name, attributes={"kind": group.kind}), group)


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
                write_array(group, coordinate, (dim,), values)
        names = sorted({*template.model, *template.query} - {"model", "query"})
        group.attrs["coordinates"] = " ".join(names)
    for coordinate, values in template.beam.items():
        write_array(root[SEARCH], coordinate, ("beam",), values)
    for name, values in template.candidates.items():
        write_array(root[CONTRAST], name, ("query", "candidate"), values)


def read_attributes(path: Path) -> dict[str, Any]:
    """The root attributes of a cube; `CubeError` when there is none."""
    try:
        return dict(zarr.open_group(store_at(path, read_only=True), mode="r").attrs)
    except Exception as error:  # Zarr takes metadata apart without looking at its types
        raise CubeError(
            f"{path} is not a cube: {type(error).__name__}",
            expected="a Zarr group that a sweep wrote",
            fix="remove it and its markers, and run the sweep again",
        ) from error


def read_sizes(path: Path, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and chunks of one array of a cube, as `codes/search/doc`."""
    array: Any = zarr.open_group(store_at(path, read_only=True), mode="r")[name]
    return array.shape, array.chunks


def is_sharded(array: Any) -> bool:
    """Whether shards write an array of a cube; else it is a coordinate, or of the candidates."""
    return tuple(array.metadata.dimension_names or ())[:2] == ("model", "query")


def write_shard(
    path: Path, kind: str, model: int, start: int, arrays: dict[str, dict[str, np.ndarray]]
) -> dict[str, str]:
    """Write a shard's tokens, logits and scores into the cube as whole chunks, durably.

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
        The shard is not a whole chunk, a shape is not the cube's, or there is no room.
    """
    try:
        return _write_chunks(path, kind, model, start, arrays)
    except OSError as error:
        raise unwritable(path, error) from error


def _write_chunks(
    path: Path, kind: str, model: int, start: int, arrays: dict[str, dict[str, np.ndarray]]
) -> dict[str, str]:
    kind_group: Any = zarr.open_group(store_at(path), mode="r+", zarr_format=3)[kind]
    digests, written = {}, []
    with zarr.config.set({"array.write_empty_chunks": True}):
        for dataset, variables in arrays.items():
            for name, values in variables.items():
                array = kind_group[dataset][name]
                region = (model, slice(start, start + len(values)))
                _require_whole_chunk(array, region[1], values, f"{dataset}/{name}")
                values = np.ascontiguousarray(values, dtype=array.dtype)
                array[region] = values
                digests[f"{dataset}/{name}"] = digest_of(values)
                key = array.metadata.encode_chunk_key(
                    (model, start // array.chunks[1], *(0,) * (array.ndim - 2))
                )
                written.append(path / kind / dataset / name / key)
    if is_local(path):
        sync_files(path, written)
    return digests


def digest_of(values: np.ndarray) -> str:
    """SHA-256 of an array's bytes, in hexadecimal."""
    return _sha256(np.ascontiguousarray(values).tobytes())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sync_files(path: Path, written: list[Path]) -> None:
    """Have files and the folders above them, up to the cube's, on the disk."""
    for file in written:
        fsync(file)
    for folder in sorted({parent for file in written for parent in file.parents}):
        if path in folder.parents:
            fsync(folder)


def seal_cube(path: Path, shards: int, digest: str) -> None:
    """Consolidate a cube's metadata, vouch for it, and mark the cube complete, last.

    Parameters
    ----------
    shards : int
        How many shards it is made of.
    digest : str
        Hash over their markers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata is not in the v3 standard yet
        zarr.consolidate_metadata(store_at(path), zarr_format=3)
    root = json.loads((path / ROOT).read_bytes())
    root["attributes"] |= {"sealed": True, "shards": shards, "digest": digest}
    text = (json.dumps(root, indent=1) + "\n").encode()
    files = {name: _sha256((path / name).read_bytes()) for name in sorted(_plain(path))}
    seal = {"digest": digest, "shards": shards, "files": {ROOT: _sha256(text), **files}}
    replace_file(RunLayout(path.parent).seal, dump_record(seal))
    replace_file(path / ROOT, text)


def unseal_cube(path: Path) -> None:
    """Mark a cube incomplete: readers refuse it until it is sealed again."""
    root = json.loads((path / ROOT).read_bytes())
    root["attributes"]["sealed"] = False
    replace_file(path / ROOT, (json.dumps(root, indent=1) + "\n").encode())


def restore_template(path: Path, template: Template) -> None:
    """Write a cube's metadata and coordinates again, and leave its shards; it is unsealed then."""
    with tempfile.TemporaryDirectory() as folder:
        write_template(Path(folder), template)
        names = files_in(Path(folder))
        for name in sorted(names, key=lambda name: name == ROOT):  # it tells what the rest is of
            replace_file(path / name, (Path(folder) / name).read_bytes())


Kept = Mapping[tuple[str, str], Set[tuple[int, int]]]
"""Model and first query of shards whose chunks hold, by identifier kind and dataset."""


def revise_cube(path: Path, template: Template, kept: Kept) -> None:
    """Make a cube one of another template, with those of its chunks that hold in it; unseals it.

    Interrupted, it leaves a cube of the old template, to be revised again: the root's metadata,
    which say what a cube is made from, come last.
    """
    if not any(kept.values()):
        remove(path)
        create_cube(path, template)
        return
    unseal_cube(path)
    groups = {group.name: group for group in template.groups}
    root: Any = zarr.open_group(store_at(path, read_only=True), mode="r", use_consolidated=False)
    for kind in sorted(root.group_keys()):
        if kind not in groups:
            remove(path / kind)
            continue
        for dataset, arrays in groups[kind].variables.items():
            shard = groups[kind].shard_queries
            chunks = {
                f"c/{model}/{start // shard}" for model, start in kept.get((kind, dataset), ())
            }
            for name in arrays:
                for file in files_in(path / kind / dataset / name):
                    if file.startswith("c/") and "/".join(file.split("/")[:3]) not in chunks:
                        (path / kind / dataset / name / file).unlink()
    restore_template(path, template)


def _plain(path: Path) -> Iterator[str]:
    """Files of a cube that no shard writes, by their names within it."""
    root: Any = zarr.open_group(store_at(path, read_only=True), mode="r", use_consolidated=False)
    for kind, group in root.groups():
        yield f"{kind}/{ROOT}"
        for dataset, arrays in group.groups():
            yield f"{kind}/{dataset}/{ROOT}"
            for name, array in arrays.arrays():
                folder = f"{kind}/{dataset}/{name}"
                if is_sharded(array):
                    yield f"{folder}/{ROOT}"
                else:
                    yield from (f"{folder}/{file}" for file in files_in(path / folder))


def write_array(
    group: zarr.Group,
    name: str,
    dims: tuple[str, ...],
    values: np.ndarray,
    rows: int | None = None,
) -> None:
    """Write a coordinate, or another array that is no shard's, in chunks of so many rows."""
    values = np.asarray(values)
    text = values.dtype.kind in "OUT"
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=tuple(max(1, size) for size in (rows or values.shape[0], *values.shape[1:])),
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
