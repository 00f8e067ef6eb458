"""A whole study, stage by stage: collection, identifiers, training, export, search, cube.

Every stage leaves an artefact in the run directory and is skipped when the artefact of the same
inputs and settings is there. The same code runs serially and on a Dask cluster.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dask
from distributed import span

from genret_dask.baselines.task import BaselineTask, run_baseline
from genret_dask.cube.baselines import baselines_in, write_baselines
from genret_dask.cube.open import open_cube
from genret_dask.cube.schema import Template
from genret_dask.cube.store import ROOT, is_cube, read_attributes, revise_cube, seal_cube
from genret_dask.datasets.collection import Collection
from genret_dask.executors.dask import DaskExecutor
from genret_dask.executors.failures import FailureLog
from genret_dask.executors.protocol import Executor, Hooks
from genret_dask.executors.serial import SerialExecutor
from genret_dask.executors.watch import LOST_TIMEOUT
from genret_dask.exporters.task import is_exported, run_export
from genret_dask.models.manifest import Manifest, read_manifest
from genret_dask.monitoring.log import RunLog
from genret_dask.monitoring.timing import StageLog, machines_of
from genret_dask.run.carried import Place, carry
from genret_dask.run.lease import Lease
from genret_dask.run.spec import is_run, write_run_spec
from genret_dask.shards.ledger import Ledger
from genret_dask.shards.plan import ShardTask, task_key
from genret_dask.shards.task import SweepContext
from genret_dask.shards.usage import MemoryUse, write_memory
from genret_dask.specs import SweepSpec
from genret_dask.specs.registry import names_of
from genret_dask.storage.artefacts import RECORD, publishing, verify
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import check_writable, is_local, place_of
from genret_dask.storage.records import read_record
from genret_dask.study.baselines import baseline_tasks, ranked_by
from genret_dask.study.cut_queries import warn_of_cut_queries
from genret_dask.study.inputs import Inputs
from genret_dask.study.preview import Preview, preview
from genret_dask.study.reductions import Reductions, exceeds_workers
from genret_dask.study.results import RESULTS, write_results
from genret_dask.study.search import search
from genret_dask.study.survey import Step, remove_stale
from genret_dask.study.taken import take_over
from genret_dask.study.tasks import export_tasks, exported_models, training_tasks
from genret_dask.study.template import build_template, shard_tasks, versions
from genret_dask.training.memory import check_memory
from genret_dask.training.task import TrainTask, finished

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

T = TypeVar("T")

Progress = Callable[[str, float, float], None]
"""Gets a stage, the work done and the work in all, in the stage's own unit."""


def sweep(
    spec: SweepSpec,
    client: Client | None = None,
    *,
    runs: Path | str = "runs",
    progress: Progress | None = None,
    redo: bool = False,
) -> Path:
    """Run every stage of a study that is not done yet.

    Parameters
    ----------
    spec : SweepSpec
    client : distributed.Client, optional
        Where training, export and search run; in this process, one by one, when left out. Both
        give the same cube, bit for bit.
    runs : path
        The run directory is `runs / spec.name`.
    progress : callable, optional
        Gets (stage, done, total).
    redo : bool
        Make anew what was made from other inputs or settings, instead of refusing it.

    Returns
    -------
    Path
        The sealed cube.

    Examples
    --------
    >>> cube = sweep(SweepSpec())  # doctest: +SKIP
    """
    study = Study(spec, client, runs=runs, progress=progress, redo=redo)
    with study.log:
        return study.search()


def _leased(stage: Callable[..., T]) -> Callable[..., T]:
    """A stage that holds the run's lease while it works."""

    @wraps(stage)
    def holding(study: Study) -> T:
        with study.lease:
            return stage(study)

    return holding


class Study:
    """The stages of a study over one run directory; each runs the stages it needs.

    Each holds the run's lease while it works. Tasks that fail are left for the next run, and listed
    in failures.json.

    Parameters
    ----------
    spec, client, runs, progress, redo
        As `sweep` takes them.
    lost_timeout : float
        Seconds without scheduler, or without any worker, before a stage gives up.
    lease : Lease, optional
        Of the run directory, where it is held already.
    limits : mapping of str to int or None, optional
        Memory limits in bytes that workers are to have, by where that is said.

    Attributes
    ----------
    memory : list of MemoryUse
        What each worker held during the search; empty where there was nothing to search.
    log : RunLog
        Of the run directory; as a context manager it notes how the run ended.

    Raises
    ------
    SpecError
        Models cannot be trained, exported or embedded with.
    StaleError
        Results of the run were made from other inputs or settings, and `redo` is not set.
    BudgetError
        A memory limit or budget, or the run directory's disk, is too small for the study.
    InputError
        Several of these.
    GenretError
        The run directory cannot be written to.
    LeaseError
        Another process works on the run.
    ClusterError
        The cluster lost its scheduler or all its workers and did not get them back.
    """

    def __init__(
        self,
        spec: SweepSpec,
        client: Client | None = None,
        *,
        runs: Path | str = "runs",
        progress: Progress | None = None,
        lost_timeout: float = LOST_TIMEOUT,
        lease: Lease | None = None,
        redo: bool = False,
        limits: Mapping[str, int | None] | None = None,
    ) -> None:
        self.spec = spec
        self.folder = place_of(runs) / spec.name
        self.layout = RunLayout(self.folder)
        self.lease = lease or Lease(self.folder)
        self.memory: list[MemoryUse] = []
        self._tasks: list[TrainTask] | None = None
        self._template: Template | None = None
        self._reductions: Reductions | None = None
        self._progress = progress
        self.client, self._lost_timeout, self._redo = client, lost_timeout, redo
        self._limits = limits
        self.log = RunLog(self.folder)
        self._stages = StageLog(self.log)
        self.inputs = Inputs(spec, self.folder, lambda: self.executor, self._report)

    @cached_property
    def executor(self) -> Executor:
        self.log("machines", machines=machines_of(self.client))
        hooks = Hooks(self._failures, self.lease.check, self.log)
        if self.client is None:
            return SerialExecutor(hooks)
        return DaskExecutor(self.client, hooks, self._lost_timeout)

    @cached_property
    def _failures(self) -> FailureLog:
        return FailureLog(self.folder)

    @property
    def collection(self) -> Collection:
        return self.inputs.collection

    def check(self) -> list[Step]:
        """Raise what is in the way of the study, before any work; return what there is of it.

        Raises
        ------
        SpecError, StaleError, BudgetError, InputError
            As the class says.
        """
        self._preview.check()
        return self._preview.steps

    @cached_property
    def _preview(self) -> Preview:
        return preview(self.inputs.origins, redo=self._redo, limits=self._limits)

    def _begin(self) -> None:
        """Say in the run directory what this run is.

        Raises
        ------
        GenretError
            It cannot be written to.
        """
        check_writable(self.folder)
        if not is_run(self.folder):  # else once what is there is known to be of this spec
            write_run_spec(self.folder, self.spec)
        threads = self.client.nthreads() if self.client else {"this process": 1}
        self.log(
            "run_started",
            versions=versions(),
            name=self.spec.name,
            workers=len(threads),
            threads=sum(threads.values()),
            dashboard=self.client.dashboard_link if self.client else None,
        )

    # --- training -----------------------------------------------------------------------------

    @_leased
    def training_tasks(self) -> list[TrainTask]:
        """Make the inputs of every cell, once; return its training tasks."""
        if self._tasks is None:
            steps = self.check()
            self._begin()
            self._check_memory()
            if self._redo:
                remove_stale(steps, self.layout)
            take_over(self.inputs.origins)
            self._tasks = training_tasks(self.inputs)
        return self._tasks

    def _check_memory(self) -> None:
        """Refuse workers that could not hold what is to be prepared, trained and exported."""
        if self.client is None:
            return

        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        limits = {address: worker["memory_limit"] for address, worker in workers.items()}
        check_memory(limits, self._preview.memory)

    @_leased
    def train(self) -> dict[str, dict[str, Any]]:
        """Train every cell; returns each checkpoint's record by `kind/name`."""
        tasks = self.training_tasks()
        records = {task.name: finished(task) for task in tasks}
        todo = [task for task in tasks if records[task.name] is None]
        if todo:
            from genret_dask.training.loop import training_flops

            if not self.cube.is_dir():
                write_run_spec(self.folder, self.spec)
            # A ready checkpoint takes a moment, too.
            flops = {task.name: max(training_flops(task), 1e9) for task in todo}
            todo.sort(key=lambda task: -flops[task.name])
            self._report("train", 0, sum(flops[task.name] for task in todo) / 1e9)
            with span(self.spec.name, "train"):
                trained = self.executor.map(
                    _train,
                    todo,
                    _keys("train", todo, tasks),
                    cost=lambda task: flops[task.name] / 1e9,
                    progress=partial(self._report, "train"),
                )
            records.update({record["name"]: record for record in trained})
            _say_how_many_are_cut(trained, self.spec.max_tokens)
        return {name: record for name, record in records.items() if record is not None}

    # --- export -------------------------------------------------------------------------------

    @_leased
    def export(self) -> dict[tuple[str, str], Manifest]:
        """Export every checkpoint in every precision; manifests by identifier kind and model.

        They are in the order of the spec's identifiers and of `models_of`.
        """
        records = self.train()
        tasks = export_tasks(self.inputs, self.training_tasks(), records)
        todo = [task for task in tasks.values() if not is_exported(task)]
        if todo:
            self._report("export", 0, len(todo))
            with span(self.spec.name, "export"):
                self.executor.map(
                    run_export,
                    todo,
                    _keys("export", todo, tasks.values()),
                    progress=partial(self._report, "export"),
                )
        return {
            place: read_manifest(task.folder, verify=is_local(task.folder))
            for place, task in tasks.items()
        }

    # --- baselines ----------------------------------------------------------------------------

    @_leased
    def baselines(self) -> list[BaselineTask]:
        """Rank by every baseline that is not done; returns the tasks of all."""
        self.training_tasks()  # looks at what is there first
        tasks = baseline_tasks(self.inputs)
        todo = {
            task_key("baselines", task.baseline.kind, task.baseline.label, row): task
            for row, task in enumerate(tasks)
            if not task.made.is_current
        }
        if todo:
            self._report("baselines", 0, len(todo))
            with span(self.spec.name, "baselines"):
                self.executor.map(
                    run_baseline,
                    list(todo.values()),
                    list(todo),
                    progress=partial(self._report, "baselines"),
                )
        return tasks

    # --- search -------------------------------------------------------------------------------

    @property
    def cube(self) -> Path:
        return self.layout.cube

    def make_template(self) -> Template:
        """Make every model, once; return the cube before its first shard."""
        if self._template is None:
            self._template = build_template(self.spec, self.inputs, self.export())
        return self._template

    @_leased
    def search(self) -> Path:
        """Search and score every shard that is not in the cube, then seal it; returns its path.

        Leaves resources.json: what each worker of the last search held in memory.
        """
        baselines = self.baselines()
        template, within = self.make_template(), self.inputs.within()
        context = SweepContext(
            run=self.layout,
            models=exported_models(self.inputs),
            inference=self.spec.inference,
            max_tokens=self.spec.max_tokens,
            fingerprint=template.made_from.fingerprint,
            corpus=self.collection.content_hash,
            within=None if within is None else within.folder,
        )
        shards = shard_tasks(template)
        self._lay_out(template, shards, context.ledger)
        write_run_spec(self.folder, self.spec)
        done = context.ledger.read_all(shards)
        todo = [task for task in shards if task.key not in done]
        if todo:
            report = partial(self._report, "search")
            report(0, sum(task.queries for task in todo))
            queries = self.collection.queries.take(self.inputs.queries)
            split, max_tokens = self.spec.inference.split, self.spec.max_tokens
            warn_of_cut_queries(queries, split, max_tokens, context.models)
            with span(self.spec.name, "search"):
                self.memory = search(self.executor, todo, context, report)
            write_memory(self.memory, self.layout.resources)
        self.lease.check()
        self._failures.clear()
        for (_, name), model in context.models.items():
            carry(
                Place(
                    model.folder,
                    model.space,
                    self.inputs.origins.collection.folder,
                    model.identifiers,
                    name,
                    self.spec.max_tokens,
                )
            )
        made_from = {task.baseline.label: task.made.fingerprint for task in baselines}
        sealed = read_attributes(self.cube).get("sealed")
        if todo or not sealed or baselines_in(self.cube) != made_from:
            names = self.collection.query_ids.take(self.inputs.queries)
            content = self.spec.model_dump(mode="json")
            write_baselines(self.cube, map(ranked_by, baselines), names, content)
            seal_cube(self.cube, len(shards), context.ledger.digest(shards))
        return self.cube

    def _lay_out(self, template: Template, shards: list[ShardTask], ledger: Ledger) -> None:
        """Have the cube that the shards are written to; of an older one, keep what holds."""
        if is_cube(self.cube, template.made_from):
            return
        holding = ledger.revise(shards if (self.cube / ROOT).is_file() else [])
        kept: dict[tuple[str, str], set[tuple[int, int]]] = {}
        for shard in shards:
            for dataset in holding.get(shard.key, ()):
                kept.setdefault((shard.kind, dataset), set()).add((shard.model, shard.start))
        revise_cube(self.cube, template, kept)

    # --- results ------------------------------------------------------------------------------

    @_leased
    def analyse(self) -> dict[str, list[dict[str, Any]]]:
        """Metrics and laws of the sealed cube, written beside it; returns their records.

        Leaves metrics.json, fits.json, where there are models in a reduced precision
        precision.json (see `genret_dask.metrics.precision`), and trec/ with the qrels and each
        model's run at the largest beam. Skipped when they were made from this very cube.
        """
        folder = self.layout.results
        digest = read_attributes(self.cube)["digest"]
        parts: dict[str, Any] = {"cube": digest, "fits": self.spec.fits}
        if added := names_of("metrics"):
            parts["metrics"] = added
        if baselines := baselines_in(self.cube):
            parts["baselines"] = baselines
        made_from = Origin("results", parts)
        if (read_record(folder / RECORD) or {}).get("fingerprint") != made_from.fingerprint:
            self._report("results", 0, 1)
            with (
                publishing(folder, made_from) as partial_folder,
                self._reducing("results") as found,
            ):
                write_results(found, self.collection, self.spec, partial_folder)
            self._report("results", 1, 1)
        else:
            verify(folder)
        return {
            path.stem: json.loads(path.read_text(encoding="utf-8"))
            for name in RESULTS
            if (path := folder / f"{name}.json").is_file()
        }

    @_leased
    def report(self) -> Path:
        """Write the page of the sealed cube, and return its path; see `genret_dask.report`.

        Skipped when it was made from this very cube.
        """
        from genret_dask.report import is_reported, write_report

        if not is_reported(self.folder):
            self._report("report", 0, 1)
            with self._reducing("report") as reductions:
                write_report(self.folder, values=reductions.values)
            self._report("report", 1, 1)
        return self.layout.page

    @contextmanager
    def _reducing(self, stage: str) -> Iterator[Reductions]:
        """Open the sealed cube for a stage, to be reduced where it fits; see `exceeds_workers`.

        What was reduced before is kept while the cube is the same. What is left runs on threads.
        """
        found = self._reductions
        if found is None or found.digest != read_attributes(self.cube)["digest"]:
            tree = open_cube(self.cube)
            on_cluster = self.client is not None and exceeds_workers(tree.nbytes, self.client)
            where = "cluster" if on_cluster else "threads"
            self.log("analysis", where=where, cube_bytes=tree.nbytes)
            found = Reductions(
                self.cube,
                tree,
                self.executor if on_cluster else None,
                partial(self._report, stage, total=1),
            )
        with dask.config.set(scheduler="threads"), span(self.spec.name, "analysis"):
            yield found
        self._reductions = found

    def _report(self, stage: str, done: float, total: float) -> None:
        self._stages(stage, done, total)
        if self._progress:
            self._progress(stage, done, total)


def _keys(stage: str, todo: Iterable[Any], tasks: Iterable[Any]) -> list[str]:
    """Names of tasks that are called kind/model, the same in every run."""
    rows = {task.name: row for row, task in enumerate(tasks)}
    places = [(task.name.partition("/"), rows[task.name]) for task in todo]
    return [task_key(stage, kind, name, row) for (kind, _, name), row in places]


def _say_how_many_are_cut(trained: Sequence[dict[str, Any]], max_tokens: int) -> None:
    """Log a line, of the model that reads most, where training texts were longer than is read."""
    most = max(trained, key=lambda record: record["texts_cut"], default=None)
    if most is not None and most["texts_cut"]:
        logger.warning(
            "%d of the %d texts that %s was trained on have more than %d tokens and are cut; "
            "max_tokens sets how many are read",
            most["texts_cut"],
            most["examples"],
            most["name"],
            max_tokens,
        )


def _train(task: TrainTask, report: Callable[[float], None]) -> dict[str, Any]:
    if task.model.checkpoint is not None:
        from genret_dask.training.ready import bring

        return bring(task)
    from genret_dask.training.loop import train

    return train(task, progress=lambda done, total: report(done / total))
