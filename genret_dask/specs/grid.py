"""The grid of a study: what is trained, and which models come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from genret_dask.specs import ModelSpec, SweepSpec, TrainingSpec, precise_name


@dataclass(frozen=True)
class Cell:
    """One trained model of the grid: an identifier kind, and a model on a fraction of the pairs."""

    identifiers: Any
    model: ModelSpec
    fraction: float

    @property
    def kind(self) -> str:
        """The name of its identifiers in the study."""
        return str(self.identifiers.label)

    @property
    def name(self) -> str:
        label = self.model.label
        return label if self.fraction == 1 else f"{label}-d{self.fraction:g}"

    def training(self, spec: SweepSpec) -> TrainingSpec:
        """The study's recipe with the model's own overrides."""
        overrides = self.model.training
        return TrainingSpec.model_validate({**spec.training.model_dump(), **overrides})


def cells_of(spec: SweepSpec) -> list[Cell]:
    """The training grid, in the order of the spec, fractions ascending."""
    return [
        Cell(identifiers, model, fraction)
        for identifiers in spec.identifiers
        for model in spec.models
        if not model.identifiers or identifiers.label in model.identifiers
        for fraction in sorted(model.fractions)
    ]


def models_of(spec: SweepSpec) -> dict[str, list[str]]:
    """Names of the models of each group of the cube: its cells in every precision."""
    found: dict[str, list[str]] = {}
    for cell in cells_of(spec):
        names = [precise_name(cell.name, precision) for precision in spec.export.precision]
        found.setdefault(cell.kind, []).extend(names)
    return found
