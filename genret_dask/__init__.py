"""Scaling laws of generative retrieval, from a YAML file to a cube of logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Retriever", "SweepSpec", "load_spec", "open_collection", "open_cube", "sweep"]

if TYPE_CHECKING:
    from genret_dask.accessor import open_collection
    from genret_dask.cube.open import open_cube
    from genret_dask.run.retriever import Retriever
    from genret_dask.specs import SweepSpec, load_spec
    from genret_dask.study.sweep import sweep

_HOMES = {
    "Retriever": "genret_dask.run.retriever",
    "SweepSpec": "genret_dask.specs",
    "load_spec": "genret_dask.specs",
    "open_collection": "genret_dask.accessor",
    "open_cube": "genret_dask.cube.open",
    "sweep": "genret_dask.study.sweep",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # Lazily: importing the package must not import xarray, Dask or torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name == "open_cube":
        import_module("genret_dask.accessor")
    return getattr(import_module(_HOMES[name]), name)
