"""What is still to be made beside models and the cube, by estimate: its time, disk and memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dask.utils import format_bytes

from genret_dask.datasets.collection import Collection
from genret_dask.errors import BudgetError
from genret_dask.kinds.base import Making
from genret_dask.specs import ModelSpec, SweepSpec
from genret_dask.specs.grid import cells_of
from genret_dask.storage.places import bytes_below, is_local
from genret_dask.study.candidates import candidate_width, select_queries
from genret_dask.study.origins import Origins
from genret_dask.study.survey import STAGES, Step
from genret_dask.training.memory import PROCESS, Need, texts_of

READ_SECONDS, READ_BYTE_SECONDS = 20e-6, 0.1e-6
"""To read a document of any source and write it into columns, and a byte of its text."""
TOKENIZER_SECONDS = 0.6e-6
"""A byte of the text that a tokeniser is trained on."""
SPANS_SECONDS, SPANS_BYTE_SECONDS = 0.2e-3, 1.5e-6
"""To sample identifiers for a candidate of a query, and a byte of its text."""
ROW_BYTES = 40
"""Of the columns, a document beside its text."""
PACKED = 8
"""A cube takes at least one byte on disk for so many: those of codes took a seventh."""


@dataclass(frozen=True)
class Preparation:
    """What is still to be made beside models and the cube.

    Attributes
    ----------
    parts : dict of str to Making
        By name; what is done is not among them.
    """

    parts: Mapping[str, Making]

    def seconds(self, cores: int) -> float:
        """Rough time on that many CPU cores, with a worker each."""
        tasks = sum(part.task_seconds for part in self.parts.values())
        return sum(part.client_seconds for part in self.parts.values()) + tasks / max(1, cores)

    @property
    def bytes_working(self) -> int:
        """Disk of files that are removed again; parts are made one after the other."""
        return max((part.bytes_working for part in self.parts.values()), default=0)

    @property
    def nbytes(self) -> int:
        """Disk that all parts take, at most at once."""
        return sum(part.bytes_kept for part in self.parts.values()) + self.bytes_working

    @property
    def client_bytes(self) -> int:
        """Memory that the process of the study takes, without the process itself."""
        return max((part.client_bytes for part in self.parts.values()), default=0)

    @property
    def needs(self) -> list[Need]:
        """What the widest task of each part holds."""
        return [_need(name, part) for name, part in self.parts.items() if part.task_bytes]


def _need(name: str, part: Making) -> Need:
    return Need(
        part.stage, name, PROCESS + part.task_bytes, lambda limit: part.fix(limit - PROCESS)
    )


def preparation(origins: Origins, steps: Sequence[Step]) -> Preparation:
    """Estimate what is still to be made; loads the collection for any.

    Parameters
    ----------
    steps : sequence of Step
        Of `genret_dask.study.survey.survey`; what is done takes nothing.
    """
    done = {step.place for step in steps if step.state == "done"}
    if not any(step.stage in STAGES and step.state != "done" for step in steps):
        return Preparation({})
    spec, collection = origins.spec, origins.loaded
    parts, seen = dict[str, Making](), set[tuple[str, str]]()
    if origins.collection.folder not in done:
        parts["collection"] = _columns(spec, collection)
    if origins.pairs is not None and origins.pairs.folder not in done:
        parts["pairs"] = Making(bytes_kept=bytes_below(origins.loaded_pairs))
    rows = len(select_queries(collection, spec.inference.split, spec.inference.queries, spec.seed))
    qrels, negatives = collection.qrels[spec.inference.split], spec.inference.negatives
    candidates = rows * candidate_width(qrels, negatives, len(collection))
    if origins.candidates.folder not in done:
        parts["candidates"] = Making(bytes_kept=9 * candidates)
    for cell in cells_of(spec):
        kind, tokenizer = cell.identifiers, origins.tokenizer(cell.model)
        own = cell.model.source is None
        if own and tokenizer.folder not in done:
            parts["tokenizer"] = _tokenizer(collection)
        # By its tokeniser, as the folder may not be known yet.
        key = kind.label, tokenizer.fingerprint if kind.per_tokenizer else ""
        if key in seen:
            continue
        seen.add(key)
        name = (
            kind.label if own or not kind.per_tokenizer else f"{kind.label} of {cell.model.label}"
        )
        if origins.space(kind, cell.model).folder not in done:
            parts[name] = kind.making(collection, _vocabulary(spec, cell.model))
        if kind.choices and origins.candidate_spans(kind, cell.model).folder not in done:
            spans = 8 * candidates * kind.choices
            letters = texts_of(collection).nbytes / len(collection)
            seconds = candidates * (SPANS_SECONDS + SPANS_BYTE_SECONDS * letters)
            parts[f"spans of {name}"] = Making(0.0, seconds, bytes_kept=spans, bytes_working=spans)
    for one in origins.baselines:
        if origins.baseline(one).folder not in done:
            parts[f"baseline {one.label}"] = one.making(collection, rows)
    return Preparation(parts)


def _columns(spec: SweepSpec, collection: Collection) -> Making:
    documents, letters = len(collection), texts_of(collection).nbytes
    seconds = READ_SECONDS * documents + READ_BYTE_SECONDS * letters
    seconds += spec.dataset.loading_seconds
    return Making(seconds, bytes_kept=letters + collection.queries.nbytes + ROW_BYTES * documents)


def _tokenizer(collection: Collection) -> Making:
    from genret_dask.training.tokenizer import SAMPLED

    share = min(1.0, SAMPLED / len(collection))
    return Making(TOKENIZER_SECONDS * share * texts_of(collection).nbytes)


def _vocabulary(spec: SweepSpec, model: ModelSpec) -> int:
    from genret_dask.models.configs import config_of

    return spec.tokenizer.vocab_size if model.source is None else config_of(model).vocab_size


def check_disk(
    origins: Origins, steps: Sequence[Step], prepared: Preparation, cube_bytes: float
) -> None:
    """Refuse a disk without room for what is still to be written; an object store has room.

    Parameters
    ----------
    cube_bytes : float
        That are still to be written, before compression.

    Raises
    ------
    BudgetError
    """
    run = origins.layout.run
    if not is_local(run):
        return
    disk = next(place for place in (run, *run.parents) if place.exists())
    begun = [step for step in steps if step.stage in STAGES and step.state != "done"]
    there = sum(bytes_below(step.place) for step in begun)
    if "collection" in prepared.parts and os.stat(origins.loaded_in).st_dev == os.stat(disk).st_dev:
        there += bytes_below(origins.loaded_in)  # it is moved
    left = max(0, prepared.nbytes - there)
    free, needed = shutil.disk_usage(disk).free, left + int(cube_bytes / PACKED)
    if free < needed:
        raise BudgetError(
            f"{format_bytes(free)} are free on the disk of {run}, and about {format_bytes(left)} "
            f"for the preparation and {format_bytes(needed - left)} for the cube are to be written",
            expected=f"{format_bytes(needed)} free",
            fix=f"free {format_bytes(needed - free)}, or choose another disk with --runs",
        )
