"""The tasks of a study: what is trained from which inputs, exported, and then searched with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genret_dask.exporters.task import ExportTask
from genret_dask.shards.task import Exported
from genret_dask.specs import precise_name
from genret_dask.specs.grid import Cell, cells_of
from genret_dask.study.inputs import Inputs
from genret_dask.training.task import TrainTask


def training_tasks(inputs: Inputs) -> list[TrainTask]:
    """The training of every cell; makes the inputs that it reads."""
    return [_training_task(inputs, cell) for cell in cells_of(inputs.spec)]


def _training_task(inputs: Inputs, cell: Cell) -> TrainTask:
    model = cell.model.model_copy(update={"fractions": (1.0,), "training": {}})
    tokenizer = inputs.tokenizer(cell.model)
    space = inputs.space(cell.identifiers, cell.model)
    pairs, made = inputs.pairs(), inputs.origins.checkpoint(cell)
    return TrainTask(
        name=f"{cell.kind}/{cell.name}",
        model=model,
        fraction=cell.fraction,
        training=cell.training(inputs.spec),
        seed=inputs.spec.seed,
        max_tokens=inputs.spec.max_tokens,
        pairs=None if pairs is None else pairs.folder,
        weights=inputs.origins.weights(cell.model),
        identifiers=cell.identifiers,
        collection=inputs.origins.collection.folder,
        tokenizer=tokenizer.folder,
        space=space.folder,
        folder=made.folder,
        made_from=made.made_from,
    )


def export_tasks(
    inputs: Inputs, trained: Sequence[TrainTask], records: Mapping[str, dict[str, Any]]
) -> dict[tuple[str, str], ExportTask]:
    """The export of every checkpoint in every precision, by identifier kind and model.

    Parameters
    ----------
    records : mapping
        What training wrote of each checkpoint, by the task's name.
    """
    export, tasks = inputs.spec.export, {}
    for task in trained:
        kind, _, cell = task.name.partition("/")
        for precision in export.precision:
            name = precise_name(cell, precision)
            tasks[kind, name] = ExportTask(
                name=f"{kind}/{name}",
                family=task.model.family,
                checkpoint=task.folder,
                made_from=task.made_from.fingerprint,
                record=records[task.name],
                precision=precision,
                tolerance=export.tolerance if precision == "fp32" else None,
                folder=inputs.origins.layout.model(kind, name),
            )
    return tasks


def steps_of(inputs: Inputs) -> dict[str, int]:
    """Tokens of the longest identifier of each group of the cube, by its name."""
    found: dict[str, int] = {}
    for cell in cells_of(inputs.spec):
        shape = cell.identifiers.shape(inputs.space(cell.identifiers, cell.model).folder)
        found[cell.kind] = max(shape.steps, found.get(cell.kind, 0))
    return found


def exported_models(inputs: Inputs) -> dict[tuple[str, str], Exported]:
    """Where shards find each model and its identifiers, by identifier kind and model."""
    found, steps = {}, steps_of(inputs)
    beams, documents = inputs.spec.inference.beams, len(inputs.collection)
    for cell in cells_of(inputs.spec):
        spans = inputs.candidate_spans(cell.identifiers, cell.model)
        for precision in inputs.spec.export.precision:
            name = precise_name(cell.name, precision)
            found[cell.kind, name] = Exported(
                folder=inputs.origins.layout.model(cell.kind, name),
                space=inputs.space(cell.identifiers, cell.model).folder,
                identifiers=cell.identifiers,
                spans=spans.folder if spans else None,
                extents={
                    "step": steps[cell.kind],
                    "rank": cell.identifiers.sizes(beams, documents)["rank"],
                },
            )
    return found
