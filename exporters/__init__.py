"""Exporters: one module a model family, found through the entry points of `genret_dask.exporters`.

An exporter is a function ``export(checkpoint, folder, *, start_token, tolerance, precision,
provenance)`` that returns a `Manifest`; a package of its own can bring more families. Its module
may have a ``check(config)`` that returns what keeps a configuration from being exported, a line
each.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from genret_dask.errors import ModelError
from genret_dask.models.manifest import Manifest
from genret_dask.models.torch_state import alone_in_torch
from genret_dask.storage.places import place_of

GROUP = "genret_dask.exporters"


def families() -> list[str]:
    """Names of the installed exporters, sorted."""
    return sorted(entry_points(group=GROUP).names)


def config_problems(family: str, config: Any) -> list[str]:
    """What keeps a transformers configuration from being exported, a line each.

    Parameters
    ----------
    family : str
        One of `families()`.
    """
    (found,) = entry_points(group=GROUP, name=family)
    check = getattr(import_module(found.module), "check", None)
    return check(config) if check else []


def export_model(family: str, checkpoint: Path, folder: Path, **options: Any) -> Manifest:
    """Export a checkpoint with the exporter of its family.

    Parameters
    ----------
    family : str
        One of `families()`.
    checkpoint : Path
        A Hugging Face folder: config.json and safetensors.
    folder : Path
        Where the exported model goes; replaced when there.
    **options
        start_token, and optionally tolerance, precision and provenance; see
        `genret_dask.exporters.t5.export`.

    Raises
    ------
    ModelError
        No exporter of that name is installed, or it does not take this checkpoint.
    ParityError
        The graphs disagree with PyTorch; nothing is published.
    """
    if family not in families():
        raise ModelError(
            f"no exporter for family {family!r}",
            expected=f"one of {', '.join(families())}",
            fix="family optimum exports any causal language model that optimum knows; "
            f"a package may add a family through the entry-point group {GROUP}",
        )
    (found,) = entry_points(group=GROUP, name=family)
    with alone_in_torch():
        return found.load()(Path(checkpoint), place_of(folder), **options)
