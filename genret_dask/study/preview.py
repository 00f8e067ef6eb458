"""All that can be known of a run before it works, for `--dry-run` and for the run itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from genret_dask.errors import DatasetError, GenretError, ModelError, together
from genret_dask.metrics.reported import check_metric
from genret_dask.specs.grid import cells_of
from genret_dask.storage.places import names_in
from genret_dask.study.baselines import check_baselines
from genret_dask.study.estimate import (
    Estimate,
    check_budget,
    cube_size,
    estimate,
    memory_needs,
    planned_groups,
)
from genret_dask.study.model_checks import check_models
from genret_dask.study.origins import Origins
from genret_dask.study.preparation import Preparation, check_disk, preparation
from genret_dask.study.survey import Step, require_current, survey
from genret_dask.study.within import check_within
from genret_dask.training.memory import Need, check_memory, texts_of


@dataclass(frozen=True)
class Preview:
    """What there is of a study, and what is in its way.

    Attributes
    ----------
    origins : Origins
    steps : list of Step
        Every result of the study; empty where what they are made from cannot be read.
    problems : list of GenretError
        Of the models, the dataset, what was made from something else, memory and the disk.
    """

    origins: Origins
    steps: list[Step]
    problems: list[GenretError]

    @cached_property
    def estimate(self) -> Estimate:
        """What the whole study takes; loads its collection."""
        return estimate(self.origins.spec, self.origins.loaded)

    @cached_property
    def memory(self) -> list[Need]:
        """What tasks that are left hold, but for shards; loads the collection for any."""
        needs = self.preparation.needs
        if any(s.state != "done" for s in self.steps if s.stage in ("train", "export")):
            texts = texts_of(self.origins.loaded)
            needs += memory_needs(self.origins.spec, texts, self.steps)
        return needs

    @cached_property
    def preparation(self) -> Preparation:
        """What is still to be made beside models and the cube; loads the collection for any."""
        return preparation(self.origins, self.steps)

    def check_disk(self) -> None:
        """Refuse a disk without room for what is still to be written; see `check_disk`."""
        written = sum(name.endswith(".json") for name in names_in(self.origins.layout.markers))
        spec = self.origins.spec
        # Not by `estimate`, which reads all texts for each n-gram model.
        cube_bytes, shards = cube_size(spec, planned_groups(spec, self.origins.loaded))
        left = cube_bytes * max(0.0, 1 - written / shards)
        check_disk(self.origins, self.steps, self.preparation, left)

    def check(self) -> None:
        """Raise what is in the way, all of it at once."""
        together(self.problems)


def preview(
    origins: Origins, *, redo: bool = False, limits: Mapping[str, int | None] | None = None
) -> Preview:
    """Look at the models, the run directory, memory and the disk of a study; writes nothing.

    Models are looked at where one is still to be exported.

    Parameters
    ----------
    origins : Origins
    redo : bool
        Whether results that were made from something else are to be made anew.
    limits : mapping of str to int or None, optional
        Memory limits in bytes, as a cluster's file gives them to its workers.

    """
    spec = origins.spec
    try:
        steps = survey(origins)
    except GenretError as error:
        problems = _caught(check_models, spec)  # says more of weights than their hash does
        said = problems and isinstance(error, ModelError)
        said = said or any(error.found in str(problem) for problem in problems)
        return Preview(origins, [], problems if said else [*problems, error])
    seen = Preview(origins, steps, _caught(check_metric, spec.dataset.main_metric))
    if any(step.stage == "export" and step.state != "done" for step in steps):
        seen.problems.extend(_caught(check_models, spec))
    if not seen.problems:
        seen.problems.extend(_caught(check_identifiers, origins))
        seen.problems.extend(_caught(check_within, origins))
        seen.problems.extend(_caught(check_pairs, origins))
        seen.problems.extend(_caught(check_baselines, origins))
    if not seen.problems and any(step.state != "done" for step in steps):
        if spec.inference.memory is not None:
            seen.problems.extend(_caught(check_budget, spec, seen.estimate))
        if any((limits or {}).values()):
            seen.problems.extend(_caught(check_memory, limits, seen.memory))
        seen.problems.extend(_caught(seen.check_disk))
    if not redo:
        seen.problems.extend(_caught(require_current, steps))
    return seen


def check_identifiers(origins: Origins) -> None:
    """Refuse a collection that cannot have the identifiers that are still to be made.

    Raises
    ------
    DatasetError
        Why, a line each.
    """
    cells = {cell.kind: cell for cell in cells_of(origins.spec)}.values()
    problems = [
        f"identifiers {cell.kind}: {problem}"
        for cell in cells
        if origins.space(cell.identifiers, cell.model).state != "done"
        for problem in cell.identifiers.refusals(origins.loaded)
    ]
    if problems:
        raise DatasetError(
            "\n  ".join(problems), fix="correct the file or the settings; nothing was started yet"
        )


def check_pairs(origins: Origins) -> None:
    """Read the user's training pairs where they are still to be made.

    Raises
    ------
    DatasetError
    """
    if origins.pairs is not None and origins.pairs.state != "done":
        _ = origins.loaded_pairs


def _caught(check: Callable[..., None], *arguments: Any) -> list[GenretError]:
    try:
        check(*arguments)
    except GenretError as error:
        return [error]
    return []
