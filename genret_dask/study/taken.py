"""The models of another run, with what they read and generate, as links in this one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genret_dask.errors import InputError
from genret_dask.models.manifest import MANIFEST
from genret_dask.run.carried import CARRIED
from genret_dask.specs import precise_name
from genret_dask.specs.grid import cells_of
from genret_dask.storage.places import is_local, link_tree, staged
from genret_dask.study.origins import Origins


def take_over(origins: Origins) -> None:
    """Link what is taken from the run of `models_from` and is not there yet, if there is one.

    Raises
    ------
    InputError
        The run lacks something, or one of the two lies in an object store.
    """
    run = origins.spec.models_from
    if run is None:
        return
    if not is_local(origins.layout.run):
        raise InputError(
            f"{origins.layout.run} is in an object store, and models_from links files of {run}",
            expected="a run directory on the file system",
        )
    for folder, theirs, record in _needed(origins):
        if (folder / record).is_file():
            continue
        if not (theirs / record).is_file():
            raise InputError(
                f"models_from: {run} has no {theirs.relative_to(run)}",
                expected="a run whose models are all trained and exported",
                fix="finish it first",
            )
        with staged(folder, record) as staging:
            link_tree(theirs, staging, without=CARRIED)


def _needed(origins: Origins) -> Iterator[tuple[Path, Path, str]]:
    """Folders of this run and of the other, and the record of each."""
    for cell in cells_of(origins.spec):
        made = (
            origins.tokenizer(cell.model),
            origins.space(cell.identifiers, cell.model),
            origins.checkpoint(cell),
        )
        for one in made:
            if one.elsewhere is not None:
                yield one.folder, one.elsewhere, one.record
        for precision in origins.spec.export.precision:
            name = precise_name(cell.name, precision)
            folder = origins.layout.model(cell.kind, name)
            if not (folder / MANIFEST).is_file():
                yield folder, origins.exported(cell.kind, name), MANIFEST
