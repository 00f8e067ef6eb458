"""Where a run stands, from its directory alone: nobody is asked, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from genret_dask.cube.schema import SEARCH
from genret_dask.cube.store import ROOT, read_attributes, read_sizes
from genret_dask.datasets.stored import MANIFEST as MANIFEST_OF_TEXTS
from genret_dask.errors import GenretError
from genret_dask.executors.failures import Failure, read_failures
from genret_dask.identifiers.ngrams import name_of_index
from genret_dask.kinds import Kind
from genret_dask.models.manifest import MANIFEST
from genret_dask.monitoring.log import read_log, unit_of
from genret_dask.run.lease import Holder, read_holder
from genret_dask.run.spec import is_run, read_run_spec
from genret_dask.shards.plan import plan_shards
from genret_dask.specs import SweepSpec, precise_name
from genret_dask.specs.grid import cells_of
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import RECORD, fetched
from genret_dask.storage.layout import TEXTS, RunLayout
from genret_dask.storage.places import names_in, place_of

_TAIL = 2**18  # bytes of the log that tell of the present
_RECENT = 600.0  # seconds that a rate is taken over
_QUIET = 60.0  # seconds without a line after which a run that did not end is taken to be gone


@dataclass(frozen=True)
class ModelStatus:
    """How far one model of the cube is.

    Attributes
    ----------
    kind, model : str
    trained, exported : bool
    shards, done, left : int or None
        None before the number of queries is known.
    """

    kind: str
    model: str
    trained: bool
    exported: bool
    shards: int | None
    done: int
    left: int | None


@dataclass(frozen=True)
class StageStatus:
    """The stage at which a run is, or was when its log ends.

    Attributes
    ----------
    stage, unit : str
    done, total : float
        Of what this run had to do.
    rate : float or None
        Units a second over the last ten minutes; None before there is one.
    seconds_left : float or None
    """

    stage: str
    unit: str
    done: float
    total: float
    rate: float | None
    seconds_left: float | None


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes
    ----------
    folder : str
    state : {"not begun", "running", "stopped", "interrupted", "failed", "incomplete", "sealed"}
        Stopped without a word, by Ctrl-C, by an error, or because it was to go no further.
    why : str or None
        The error.
    stage : StageStatus or None
    models : tuple of ModelStatus
    indexes, indexes_done : int
        Identifier spaces: codes, and an n-gram index for each tokeniser.
    baselines, baselines_done : int
    failures : tuple of Failure
        Tasks that were given up.
    client : Holder or None
        Who works at it.
    dashboard : str or None
        Of the client's cluster, while the run is not over.
    log_age : float or None
        Seconds since the last line of the log.
    last_event : dict or None
    """

    folder: str
    state: str
    why: str | None
    stage: StageStatus | None
    models: tuple[ModelStatus, ...]
    indexes: int
    indexes_done: int
    baselines: int
    baselines_done: int
    failures: tuple[Failure, ...]
    client: Holder | None
    dashboard: str | None
    log_age: float | None
    last_event: dict[str, Any] | None

    @property
    def counts(self) -> list[tuple[int, str]]:
        """Count what is done, each number with its text: spaces, baselines, models, shards."""
        models = self.models
        trained, exported = sum(one.trained for one in models), sum(one.exported for one in models)
        done, shards = sum(one.done for one in models), [one.shards for one in models]
        planned = "?" if None in shards else f"{sum(one or 0 for one in shards):,}"
        ranked = (self.baselines_done, f"{self.baselines_done} of {self.baselines} baselines")
        return [
            (self.indexes_done, f"{self.indexes_done} of {self.indexes} identifier spaces"),
            *([ranked] if self.baselines else []),
            (trained, f"{trained} of {len(models)} models trained"),
            (exported, f"{exported} of {len(models)} exported"),
            (done, f"{done:,} of {planned} shards searched"),
        ]


def read_status(folder: Path, spec: SweepSpec | None = None) -> RunStatus:
    """Look at a run directory.

    Parameters
    ----------
    folder : Path
    spec : SweepSpec, optional
        Of the study that the run is to become, where it grows; what the directory says by default.

    Raises
    ------
    InputError
        There is no run in it.
    StaleError
        Its spec is damaged.
    """
    spec = spec or read_run_spec(folder)
    run = RunLayout(folder)
    cube = read_attributes(run.cube) if (run.cube / ROOT).is_file() else {}
    events = list(read_log(folder, _TAIL))
    events = [event for event in events if event.get("run") == events[-1].get("run")]
    last = events[-1] if events else None
    age = _age(last)
    holder = read_holder(folder)
    client = None if holder is None or holder.released or holder.is_gone() else holder
    over = last is not None and last["event"] == "run_ended"
    state = "sealed" if cube.get("sealed") else "running" if client else _state(last, age)
    began = next((event for event in events if event["event"] == "run_started"), {})
    baselines = spec.baselines_for(_documents(run))
    indexes = [made for kind in spec.identifiers for made in _identifiers(run, spec, kind)]
    return RunStatus(
        folder=str(folder),
        state=state,
        why=f"{last.get('error')}: {last.get('text')}" if last and state == "failed" else None,
        stage=None if over else _stage(events),
        models=tuple(_models(run, spec)),
        indexes=len(indexes),
        indexes_done=sum(indexes),
        baselines=len(baselines),
        baselines_done=sum((run.baseline(one.label) / RECORD).is_file() for one in baselines),
        failures=tuple(read_failures(folder)),
        client=client,
        dashboard=None if over or state == "stopped" else began.get("dashboard"),
        log_age=age,
        last_event=last,
    )


def what_is_done(folder: Path, spec: SweepSpec | None = None) -> str:
    """Say what a run directory holds, and that the same command goes on from there.

    Parameters
    ----------
    folder : Path
    spec : SweepSpec, optional
        Of the study that is run; what the directory says by default.

    Examples
    --------
    >>> what_is_done(Path("runs/none"))
    'Nothing is done yet. The same command starts anew.'
    """
    folder = place_of(folder)
    run = RunLayout(folder)
    try:
        status = read_status(folder, spec if is_run(folder) else None)
    except GenretError:  # there is no run yet
        return "Nothing is done yet. The same command starts anew."
    done = _there(run.collection, run.tokenizer())
    done += [text for count, text in status.counts if count]
    done += _there(run.results, run.report)
    if not done:
        return "Nothing is done yet. The same command starts anew."
    return f"Done: {', '.join(done)}. The same command goes on from there."


def _there(*artefacts: Path) -> list[str]:
    return [one.name for one in artefacts if (one / RECORD).is_file()]


def _state(last: dict[str, Any] | None, age: float | None) -> str:
    """Of a cube that is not sealed, and that nobody works at: by its log's last line."""
    if last is None:
        return "not begun"
    if last["event"] == "run_ended":
        outcome = str(last.get("outcome"))
        return "incomplete" if outcome == "done" else outcome
    return "running" if age is not None and age < _QUIET else "stopped"


def _models(run: RunLayout, spec: SweepSpec) -> Iterator[ModelStatus]:
    """Every model of the cube, its markers found by one listing."""
    names = set(names_in(run.markers))
    cells = cells_of(spec)
    for kind, group in groupby(cells, lambda cell: cell.kind):
        models = [
            (cell, precise_name(cell.name, precision))
            for cell in group
            for precision in spec.export.precision
        ]
        queries = _queries(run, spec, kind)
        shards = plan_shards(kind, [name for _, name in models], *(queries or (0, 1)))
        planned, done = [0] * len(models), [0] * len(models)
        for shard in shards:
            planned[shard.model] += 1
            done[shard.model] += f"{shard.key}.json" in names
        for row, (cell, name) in enumerate(models):
            yield ModelStatus(
                kind=kind,
                model=name,
                trained=(run.checkpoint(kind, cell.name) / RECORD).is_file(),
                exported=(run.model(kind, name) / MANIFEST).is_file(),
                shards=planned[row] if queries else None,
                done=done[row],
                left=planned[row] - done[row] if queries else None,
            )


def _queries(run: RunLayout, spec: SweepSpec, kind: str) -> tuple[int, int] | None:
    """Queries, and those of a shard; None before they are known."""
    if (run.cube / ROOT).is_file():
        shape, chunks = read_sizes(run.cube, f"{kind}/{SEARCH}/doc")
        return shape[1], chunks[1]
    try:
        queries = len(read_array(fetched(run.candidates) / "doc.npy", dims=2))
    except (OSError, ValueError, GenretError):
        return None
    return queries, spec.inference.shard_queries


def _identifiers(run: RunLayout, spec: SweepSpec, kind: Kind) -> list[bool]:
    """Whether the identifiers of a kind are there, of every tokeniser that they are made of."""
    if not kind.per_tokenizer:
        return [(run.identifiers(kind.label) / kind.record_name).is_file()]
    models = [cell.model for cell in cells_of(spec) if cell.identifiers is kind]
    tokenizers = {run.tokenizer(model.label if model.source else None) for model in models}
    found = []
    for tokenizer in tokenizers:
        try:
            folder = run.identifiers(kind.label, name_of_index(tokenizer))
            found.append((folder / kind.record_name).is_file())
        except GenretError:  # there is no tokeniser yet
            found.append(False)
    return found


def _documents(run: RunLayout) -> int:
    """Documents of the collection, without opening it; 0 while it is not there."""
    try:
        facts = json.loads((run.collection / TEXTS / MANIFEST_OF_TEXTS).read_bytes())
        return int(facts["documents"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _stage(events: list[dict[str, Any]]) -> StageStatus | None:
    """Of the last stage that did not end."""
    points: list[tuple[float, float, float]] = []
    stage, spoke = None, None
    for event in events:
        if event["event"] == "stage_began":
            stage, points = event.get("stage"), [(0.0, 0.0, float(event["total"]))]
        elif event["event"] == "stage_progress":
            stage, spoke = event.get("stage"), event
            points.append((event["seconds"], event["done"], event["total"]))
        elif event["event"] == "stage_ended":
            stage, points = None, []
    if stage is None or not points:
        return None
    now, done, total = points[-1]
    then, before, _ = next(point for point in points if now - point[0] <= _RECENT)
    rate = (done - before) / (now - then) if now > then and done > before else None
    left = max(0.0, (total - done) / rate - (_age(spoke) or 0.0)) if rate else None
    return StageStatus(stage, unit_of(stage), done, total, rate, left)


def _age(event: dict[str, Any] | None) -> float | None:
    try:
        written = datetime.fromisoformat((event or {})["time"])
        return round((datetime.now(UTC) - written).total_seconds(), 1)
    except (KeyError, TypeError, ValueError):
        return None
