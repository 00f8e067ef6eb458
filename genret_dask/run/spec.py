"""What a run directory is a run of: its study's resolved spec, in `spec.json`."""

from __future__ import annotations

import json
from pathlib import Path

from genret_dask.errors import GenretError, InputError, StaleError
from genret_dask.specs import SweepSpec
from genret_dask.specs.validation import validate
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import place_of, replace_file


def is_run(folder: Path) -> bool:
    """Whether a run was begun in the folder."""
    return RunLayout(folder).spec.is_file()


def write_run_spec(folder: Path, spec: SweepSpec) -> None:
    """Put the spec into the run directory, unless it is there.

    Raises
    ------
    GenretError
        The folder cannot be written to.
    """
    path = RunLayout(folder).spec
    text = json.dumps(spec.model_dump(mode="json"), indent=1) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        replace_file(path, text.encode())


def read_run_spec(folder: Path | str) -> SweepSpec:
    """The spec that a run directory was made by.

    Raises
    ------
    InputError
        There is no run: no folder, or nothing was begun in it.
    StaleError
        The file is damaged, or of another version of genret-dask.
    """
    folder = place_of(folder)
    path = RunLayout(folder).spec
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return validate(SweepSpec, content, source=str(path))
    except FileNotFoundError as error:
        there = "has no run in it" if folder.is_dir() else "is not there"
        raise InputError(
            f"{folder} {there}: no {path.name}",
            expected="the directory of a run, as runs/NAME, which a sweep, train or export began",
            fix="check the path, or start it with genret-dask sweep",
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, GenretError) as error:
        raise StaleError(
            f"{path} is damaged or of another version: {' '.join(str(error).split())[:300]}",
            expected="what a sweep wrote",
            fix=f"remove {path} and run the study again: finished work is kept",
        ) from error
