"""Reading a cube with xarray, lazily, one Dask chunk a shard."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, VLenUTF8Codec, ZstdCodec

from genret_dask.cube.schema import CONTRAST, SEARCH
from genret_dask.cube.store import read_attributes
from genret_dask.errors import CubeError, GenretError

_CODECS = (BytesCodec, VLenUTF8Codec, ZstdCodec, Crc32cCodec)


def open_cube(path: Path | str, *, allow_unsealed: bool = False) -> xr.DataTree:
    """Open a cube, or the cube of a run directory, as a lazy `xarray.DataTree`.

    Parameters
    ----------
    path : path
        `cube.zarr`, or a run directory that holds it.
    allow_unsealed : bool
        Open a cube that a sweep has not finished; missing shards then read as NaN and -1.

    Returns
    -------
    xarray.DataTree
        ``/<kind>/search`` and ``/<kind>/contrast``.

    Raises
    ------
    CubeError
        There is no cube, or it is not sealed.

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
        _check_codecs(path)
        return xr.open_datatree(
            path, engine="zarr", chunks={}, consolidated=bool(attributes.get("sealed"))
        )


def kinds(tree: xr.DataTree) -> Iterator[tuple[str, xr.Dataset, xr.Dataset]]:
    """Yield each identifier kind of a cube with its search and contrast datasets."""
    for kind in tree.children:
        with reading(kind):
            search, contrast = (tree[f"{kind}/{name}"].to_dataset() for name in (SEARCH, CONTRAST))
        yield kind, search, contrast


def _check_codecs(path: Path) -> None:
    """Refuse arrays that decode otherwise than a cube's, pickled objects above all."""
    for name, array in zarr.open_group(path, mode="r").members(max_depth=None):
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
            fix="remove its cube.zarr and markers, and run the sweep again",
        ) from error


def cube_path(path: Path | str) -> Path:
    """The cube inside a run directory, or the path itself."""
    path = Path(path)
    inner = path / "cube.zarr"
    path = inner if inner.is_dir() else path
    if not (path / "zarr.json").is_file():
        raise CubeError(
            f"there is no cube at {path}",
            expected="a run directory, or its cube.zarr",
            fix="run genret-dask sweep first",
        )
    return path
