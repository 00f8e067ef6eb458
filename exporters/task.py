"""The export of one checkpoint in one precision, as a task for a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genret_dask.errors import ModelError
from genret_dask.exporters import export_model
from genret_dask.models.manifest import Reading, Training, read_manifest
from genret_dask.models.torch_state import alone_in_torch
from genret_dask.specs import Precision
from genret_dask.storage.artefacts import fetched
from genret_dask.storage.places import is_local


@dataclass(frozen=True)
class ExportTask:
    """One checkpoint in one precision.

    Attributes
    ----------
    name, family : str
        Of the exported model.
    checkpoint : Path
        A Hugging Face folder.
    made_from : str
        Fingerprint of what the checkpoint was made from.
    record : dict
        What training wrote of it.
    precision : {"fp32", "fp16", "bf16", "int8"}
    tolerance : float or None
        None is the precision's own.
    folder : Path
        Where the exported model goes.
    """

    name: str
    family: str
    checkpoint: Path
    made_from: str
    record: dict[str, Any]
    precision: Precision
    tolerance: float | None
    folder: Path


def is_exported(task: ExportTask) -> bool:
    """Whether the folder is there.

    Raises
    ------
    ModelError
        It is there, but of another checkpoint or precision, or damaged.
    """
    if not (task.folder / "manifest.json").is_file():
        return False
    # Of an object store, those that use a model check the copy that they fetch.
    manifest = read_manifest(task.folder, verify=is_local(task.folder))
    found = f"{manifest.made_from} in {manifest.precision}"
    expected = f"{task.made_from} in {task.precision}"
    if found != expected:
        raise ModelError(
            f"{task.folder} was exported from another checkpoint ({found})",
            expected=expected,
            fix=f"give the run another name, or remove {task.folder}",
        )
    return True


def run_export(task: ExportTask, report: Callable[[float], None]) -> None:
    """Export unless it is done; the work is not divisible: nothing is reported on the way."""
    if is_exported(task):
        return
    record = {**task.record, "made_from": task.made_from}
    with alone_in_torch(threads=1):
        report(0.0)  # raises if the worker closed while this task waited for its turn
        export_model(
            task.family,
            fetched(task.checkpoint),
            task.folder,
            start_token=record["start_token"],
            tolerance=task.tolerance,
            precision=task.precision,
            reading=Reading(**{key: record[key] for key in Reading.model_fields if key in record}),
            training=Training(**{key: record[key] for key in Training.model_fields}),
        )
