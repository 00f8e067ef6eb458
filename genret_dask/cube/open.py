"""Reading a cube with xarray, lazily, one Dask chunk a shard."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from zarr.abc.store import ByteRequest
from zarr.codecs import BytesCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from genret_dask.cube.schema import BASELINES, CONTRAST, SEARCH
from genret_dask.cube.store import ROOT, read_attributes, store_at
from genret_dask.errors import CubeError, GenretError, InputError
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import place_of

_CODECS = (BytesCodec, VLenUTF8Codec, ZstdCodec, Crc32cCodec)


def open_cube(path: Path | str, *, allow_unsealed: bool = False) -> xr.DataTree:
    """Open a cube, or the cube of a run directory, as a lazy `xarray.DataTree`.

    Coordinates are read; all other arrays are lazy.

    Parameters
    ----------
    path : path
        `cube.zarr`, or a run directory that holds it.
    allow_unsealed : bool
        Open a cube that a sweep has not finished; missing shards then read as NaN and -1.

    Returns
    -------
    xarray.DataTree
        ``/<kind>/search`` and ``/<kind>/contrast``, and ``/baselines/<name>``.

    Raises
    ------
    InputError
        There is no cube.
    CubeError
        It is not sealed, or damaged.

    Examples
    --------
    >>> tree = open_cube("runs/pydoc")  # doctest: +SKIP
    >>> tree["codes/search"].score.mean("query")  # doctest: +SKIP
    """
    path = cube_path(path)
    attributes = read_attributes(path)
    if not attributes.get("sealed") and not allow_unsealed:
        raise CubeError(
            f"{path} is not sealed: its sweep has not finished",
            expected="a sealed cube",
            fix="run the sweep again to finish it, or open it with allow_unsealed=True",
        )
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # consolidated metadata is not in the v3 standard yet
        store: Any = store_at(path, read_only=True)
        check_codecs(zarr.open_group(store, mode="r"), path)
        sealed = bool(attributes.get("sealed"))
        store = WholeStore(store) if sealed else store
        tree = xr.open_datatree(store, engine="zarr", chunks={}, consolidated=sealed)
        tree.encoding["source"] = str(path)
        # Small, and what one groups and selects by: xarray does neither by lazy coordinates.
        for group in tree.subtree:
            for name in set(group.coords) - set(group.dims):  # a dimension's own is in memory
                group.variables[name].load(scheduler="threads")
        return tree


class WholeStore(WrapperStore[Any]):
    """The store of a sealed cube, where a chunk that is not there is lost: Zarr would fill it."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """See `zarr.abc.store.Store.get`; CubeError where a chunk is missing."""
        found = await super().get(key, prototype, byte_range)
        if found is None and "/c/" in key:
            raise CubeError(
                f"the cube has lost its chunk {key}",
                expected="every chunk of a sealed cube",
                fix="run genret-dask repair on the run",
            )
        return found


def kinds(tree: xr.DataTree) -> Iterator[tuple[str, xr.Dataset, xr.Dataset]]:
    """Yield each identifier kind of a cube with its search and contrast datasets."""
    for kind in tree.children:
        if kind == BASELINES:
            continue
        with reading(kind):
            search, contrast = (tree[f"{kind}/{name}"].to_dataset() for name in (SEARCH, CONTRAST))
        yield kind, search, contrast


def check_codecs(group: zarr.Group, path: Path) -> None:
    """Refuse arrays that decode otherwise than a cube's, pickled objects above all.

    Raises
    ------
    CubeError
    """
    for name, array in group.members(max_depth=None):
        if isinstance(array, zarr.Array):
            metadata = array.metadata
            codecs = [type(codec) for codec in getattr(metadata, "codecs", ())]
            strange = [codec.__name__ for codec in codecs if codec not in _CODECS]
            if metadata.zarr_format != 3 or strange:
                raise CubeError(
                    f"{path}: {name} has format {metadata.zarr_format} and codecs {strange}",
                    expected=f"format 3 and {', '.join(codec.__name__ for codec in _CODECS)}",
                    fix="do not trust this cube",
                )


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Name the cube where a part of it cannot be read: a codec, a chunk or a variable is wrong.

    Zarr, its codecs and xarray have no error of their own for a damaged store.

    Raises
    ------
    CubeError
    """
    try:
        yield
    except GenretError:
        raise
    except Exception as error:
        raise CubeError(
            f"the cube cannot be read ({what}): {type(error).__name__}: {str(error)[:300]}",
            expected="a whole cube, as a sweep wrote it",
            fix="genret-dask verify lists what is damaged, genret-dask repair redoes it",
        ) from error


def cube_path(path: Path | str) -> Path:
    """The cube inside a run directory, or the path itself."""
    path = place_of(path)
    inner = RunLayout(path).cube
    path = inner if (inner / ROOT).is_file() else path
    if not (path / ROOT).is_file():
        raise InputError(
            f"there is no cube at {path}",
            expected="a run directory, or its cube.zarr",
            fix="run genret-dask sweep first",
        )
    return path
