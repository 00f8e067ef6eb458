"""The diagnostics of all identifiers of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genret_dask.datasets import stored
from genret_dask.errors import InputError
from genret_dask.identifiers.ngrams import name_of_index
from genret_dask.kinds.base import Diagnosis, Kind
from genret_dask.specs import SweepSpec
from genret_dask.specs.grid import cells_of
from genret_dask.storage.layout import RunLayout


@dataclass(frozen=True)
class Diagnosed:
    """One space of identifiers of a run.

    Attributes
    ----------
    identifiers : str
        What the study calls them.
    tokenizer : str or None
        Whose tokens they are made of: `tokenizer` is that of all models from scratch, others are
        those of pretrained models. None for kinds that are not made of them.
    diagnosis : Diagnosis
    """

    identifiers: str
    tokenizer: str | None
    diagnosis: Diagnosis

    @property
    def title(self) -> str:
        """What it is called, for people."""
        return self.identifiers + (f", {self.tokenizer}" if self.tokenizer else "")


def diagnose(run: RunLayout, spec: SweepSpec) -> list[Diagnosed]:
    """Describe every space of identifiers of a run; reads all of their bytes.

    Raises
    ------
    InputError
        A space is not there yet.
    ModelError
        One is damaged.
    DatasetError
        The collection is.
    """
    collection, found = stored.read_artefact(run.collection), []
    for kind, tokenizer, folder in _spaces(run, spec):
        if not (folder / kind.record_name).is_file():
            raise InputError(
                f"{run.run} has no identifiers {kind.label}",
                expected=f"a finished {folder}",
                fix="make them with genret-dask sweep or train",
            )
        found.append(Diagnosed(kind.label, tokenizer, kind.diagnostics(folder, collection)))
    return found


def _spaces(run: RunLayout, spec: SweepSpec) -> Iterator[tuple[Kind, str | None, Path]]:
    """Each kind, and the place of its identifiers of each tokeniser."""
    for kind in spec.identifiers:
        if not kind.per_tokenizer:
            yield kind, None, run.identifiers(kind.label)
            continue
        models = [cell.model for cell in cells_of(spec) if cell.identifiers is kind]
        tokenizers = [run.tokenizer(one.label if one.source else None) for one in models]
        names = {name_of_index(one): one.name for one in reversed(tokenizers)}
        for digest, name in reversed(names.items()):
            yield kind, name, run.identifiers(kind.label, digest)
