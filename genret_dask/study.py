"""A whole study, stage by stage: collection, identifiers, training, export, search, cube.

Every stage leaves an artefact in the run directory and is skipped when the artefact of the same
inputs and settings is there. The same code runs serially and on a Dask cluster.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np

from genret_dask.artefacts import is_current, publishing, read_record, unwritable
from genret_dask.cube.schema import Template
from genret_dask.cube.store import FORMAT, create_cube, read_attributes, seal_cube
from genret_dask.datasets import artefact, fingerprint_of, load
from genret_dask.datasets.collection import Collection
from genret_dask.exporters.task import ExportTask, is_exported, run_export
from genret_dask.fingerprint import fingerprint
from genret_dask.identifiers import Codes, build_codes, read_codes, write_codes
from genret_dask.inference.candidates import build_candidates, select_queries
from genret_dask.models.manifest import Manifest, read_manifest
from genret_dask.shards.plan import plan_shards
from genret_dask.shards.run import DaskExecutor
from genret_dask.shards.serial import SerialExecutor
from genret_dask.shards.task import SweepContext
from genret_dask.shards.usage import MemoryUse
from genret_dask.specs import ModelSpec, SweepSpec, TrainingSpec, precise_name

if TYPE_CHECKING:
    from distributed import Client

    from genret_dask.training.loop import TrainTask

logger = logging.getLogger(__name__)

RESULTS = ("metrics", "fits", "precision")
"""Stems of the JSON files that `Study.analyse` leaves."""

Progress = Callable[[str, float, float], None]
"""Gets a stage, the work done and the work in all, in the stage's own unit."""


def sweep(
    spec: SweepSpec,
    client: Client | None = None,
    *,
    runs: Path | str = "runs",
    progress: Progress | None = None,
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

    Returns
    -------
    Path
        The sealed cube.

    Examples
    --------
    >>> cube = sweep(SweepSpec())  # doctest: +SKIP
    """
    return Study(spec, client, runs=runs, progress=progress).search()


@dataclass(frozen=True)
class Cell:
    """One trained model of the grid: a model of the spec on one fraction of the pairs."""

    model: ModelSpec
    fraction: float

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
    return [Cell(model, fraction) for model in spec.models for fraction in sorted(model.fractions)]


def models_of(spec: SweepSpec) -> list[str]:
    """Names of the exported models, which are the cube's: each cell in each precision."""
    return [
        precise_name(cell.name, precision)
        for cell in cells_of(spec)
        for precision in spec.export.precision
    ]


class Study:
    """The stages of a study over one run directory; each runs the stages it needs.

    Parameters
    ----------
    spec, client, runs, progress
        As `sweep` takes them.

    Attributes
    ----------
    memory : list of MemoryUse
        What each worker held during the search; empty where there was nothing to search.

    Raises
    ------
    GenretError
        The run directory cannot be written to.
    """

    def __init__(
        self,
        spec: SweepSpec,
        client: Client | None = None,
        *,
        runs: Path | str = "runs",
        progress: Progress | None = None,
    ) -> None:
        self.spec = spec
        self.folder = Path(runs).absolute() / spec.name
        self.memory: list[MemoryUse] = []
        self._progress = progress
        self._client = client

    @cached_property
    def executor(self) -> DaskExecutor | SerialExecutor:
        return SerialExecutor() if self._client is None else DaskExecutor(self._client)

    # --- inputs -------------------------------------------------------------------------------

    @cached_property
    def collection(self) -> Collection:
        """The collection, loaded once and kept in the run directory."""
        self._check_writable()
        folder = self.folder / "collection"
        made_from = fingerprint("collection", fingerprint_of(self.spec.dataset), self.spec.seed)
        if is_current(folder, made_from):
            return artefact.read(folder / "beir")
        self._report("dataset", 0, 1)
        collection = load(self.spec.dataset, self.spec.seed)
        with publishing(folder, made_from) as partial_folder:
            artefact.write(collection, partial_folder / "beir")
        self._report("dataset", 1, 1)
        return collection

    @cached_property
    def codes(self) -> Codes:
        made_from = self._codes_made_from
        folder = self.folder / "identifiers" / "codes"
        if not is_current(folder, made_from):
            self._report("identifiers", 0, 1)
            codes = build_codes(self.collection, self.spec.identifiers, self.spec.seed)
            write_codes(codes, folder, made_from)
            self._report("identifiers", 1, 1)
        return read_codes(folder)

    @property
    def _codes_made_from(self) -> str:
        return fingerprint(
            "codes", self.collection.content_hash, self.spec.identifiers, self.spec.seed
        )

    def _pairs(self) -> tuple[Path, str]:
        from genret_dask.training.pairs import Pairs, build_pairs, write_pairs

        made_from = fingerprint(
            "pairs",
            self.collection.content_hash,
            self.spec.training.pairs,
            self.spec.training.dev_queries,
            self.spec.seed,
        )
        folder = self.folder / "pairs"
        if not is_current(folder, made_from):
            self._report("pairs", 0, 1)
            collection = self.collection
            with publishing(folder, made_from) as partial_folder:
                pairs = build_pairs(collection, self.spec.training.pairs, self.spec.seed)
                write_pairs(pairs, partial_folder / "train.jsonl.gz")
                split = "dev" if len(collection.qrels["dev"].relevant()) else "train"
                dev = collection.qrels[split].relevant()
                chosen = np.random.default_rng(self.spec.seed).permutation(len(dev))
                chosen = np.sort(chosen[: self.spec.training.dev_queries])
                texts = [collection.queries[row] for row in dev.query[chosen]]
                write_pairs(
                    Pairs(texts, dev.document[chosen], np.zeros(len(texts), np.int8)),
                    partial_folder / "dev.jsonl.gz",
                )
                texts = [collection.document(row) for row in range(len(collection))]
                rows = np.arange(len(texts), dtype=np.int32)
                write_pairs(
                    Pairs(texts, rows, np.ones(len(rows), np.int8)),
                    partial_folder / "documents.jsonl.gz",
                )
            self._report("pairs", 1, 1)
        return folder, made_from

    def _tokenizer(self) -> tuple[Path, str]:
        made_from = fingerprint("tokenizer", self.collection.content_hash, self.spec.tokenizer)
        folder = self.folder / "tokenizer"
        if not is_current(folder, made_from):
            from genret_dask.training.tokenizer import save_tokenizer, train_tokenizer

            self._report("tokenizer", 0, 1)
            with publishing(folder, made_from) as partial_folder:
                tokenizer = train_tokenizer(self.collection, self.spec.tokenizer)
                save_tokenizer(tokenizer, partial_folder)
            self._report("tokenizer", 1, 1)
        return folder, made_from

    # --- training -----------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> list[TrainTask]:
        """The training task of every cell; makes the inputs they read."""
        from genret_dask.training.loop import TrainTask

        codes, made_from = self.codes, self._codes_made_from
        pairs, pairs_from = self._pairs()
        tokenizer, tokenizer_from = self._tokenizer()
        tasks = []
        for cell in cells_of(self.spec):
            training = cell.training(self.spec)
            model = cell.model.model_copy(update={"fractions": (1.0,), "training": {}})
            inputs = (model, cell.fraction, training, made_from, pairs_from, tokenizer_from)
            tasks.append(
                TrainTask(
                    name=cell.name,
                    model=model,
                    fraction=cell.fraction,
                    training=training,
                    seed=self.spec.seed,
                    pairs=pairs,
                    tokenizer=tokenizer,
                    codes=self.folder / "identifiers" / "codes",
                    folder=self.folder / "checkpoints" / cell.name,
                    made_from=fingerprint("checkpoint", inputs, codes.length, self.spec.seed),
                )
            )
        return tasks

    def train(self) -> dict[str, dict[str, Any]]:
        """Train every cell; returns each checkpoint's record by name."""
        from genret_dask.training.loop import finished, training_flops

        records = {task.name: finished(task) for task in self.tasks}
        todo = [task for task in self.tasks if records[task.name] is None]
        if todo:
            flops = {task.name: training_flops(task) for task in todo}
            todo.sort(key=lambda task: -flops[task.name])
            trained = self.executor.map(
                _train,
                todo,
                [f"train-{task.name}" for task in todo],
                cost=lambda task: flops[task.name] / 1e9,
                progress=partial(self._report, "train"),
            )
            records.update({record["name"]: record for record in trained})
        return {name: record for name, record in records.items() if record is not None}

    # --- export -------------------------------------------------------------------------------

    def export(self) -> dict[str, Manifest]:
        """Export every checkpoint in every precision; returns the manifests by the model's name.

        They are in the order of `models_of`.
        """
        records = self.train()
        tolerance = self.spec.export.tolerance
        tasks = [
            ExportTask(
                name=(name := precise_name(task.name, precision)),
                family=task.model.family,
                checkpoint=task.folder,
                made_from=task.made_from,
                record=records[task.name],
                precision=precision,
                tolerance=tolerance if precision == "fp32" else None,
                folder=self._export_folder(name),
            )
            for task in self.tasks
            for precision in self.spec.export.precision
        ]
        todo = [task for task in tasks if not is_exported(task)]
        if todo:
            self.executor.map(
                run_export,
                todo,
                [f"export-{task.name}" for task in todo],
                progress=partial(self._report, "export"),
            )
        return {task.name: read_manifest(task.folder) for task in tasks}

    def _export_folder(self, name: str) -> Path:
        return self.folder / "models" / name

    # --- search -------------------------------------------------------------------------------

    @property
    def cube(self) -> Path:
        return self.folder / "cube.zarr"

    def search(self) -> Path:
        """Search and score every shard that is not in the cube, then seal it; returns its path.

        Leaves resources.json: what each worker of the last search held in memory.
        """
        manifests = self.export()
        template = self._template(manifests)
        create_cube(self.cube, template)
        attributes = template.attributes
        context = SweepContext(
            cube=self.cube,
            markers=self.folder / "markers" / attributes["fingerprint"],
            codes=self.folder / "identifiers" / "codes",
            exports={name: self._export_folder(name) for name in manifests},
            kind=template.kind,
            inference=self.spec.inference,
            fingerprint=attributes["fingerprint"],
        )
        shards = plan_shards(list(manifests), template.sizes["query"], template.shard_queries)
        todo = [task for task in shards if not context.ledger.is_done(task)]
        if todo:
            report = partial(self._report, "search")
            self.memory = self.executor.search(todo, context, report)
            write_memory(self.memory, self.folder / "resources.json")
        if todo or not read_attributes(self.cube).get("sealed"):
            seal_cube(self.cube, len(shards), context.ledger.digest(shards))
        return self.cube

    # --- results ------------------------------------------------------------------------------

    def analyse(self) -> dict[str, list[dict[str, Any]]]:
        """Metrics and laws of the sealed cube, written beside it; returns their records.

        Leaves metrics.json, fits.json, where there are models in a reduced precision
        precision.json (see `genret_dask.metrics.precision`), and trec/ with the qrels and each
        model's run at the largest beam. Skipped when they were made from this very cube.
        """
        folder = self.folder / "results"
        made_from = fingerprint("results", read_attributes(self.cube)["digest"], self.spec.fits)
        if (read_record(folder) or {}).get("made_from") != made_from:
            self._report("results", 0, 1)
            # Many small reductions: threads here are faster than the cluster's scheduler.
            threads = dask.config.set(scheduler="threads")
            with publishing(folder, made_from) as partial_folder, threads:
                write_results(self.cube, self.collection, self.spec, partial_folder)
            self._report("results", 1, 1)
        return {
            path.stem: json.loads(path.read_text(encoding="utf-8"))
            for name in RESULTS
            if (path := folder / f"{name}.json").is_file()
        }

    def _template(self, manifests: dict[str, Manifest]) -> Template:
        spec, collection, codes = self.spec.inference, self.collection, self.codes
        rows = select_queries(collection, spec.split, spec.queries, self.spec.seed)
        candidates = build_candidates(
            collection, collection.qrels[spec.split], rows, spec.negatives, self.spec.seed
        )
        facts = {name: manifest.provenance for name, manifest in manifests.items()}
        hashes = {
            name: fingerprint("model", manifest.files) for name, manifest in manifests.items()
        }
        settings = spec.model_dump(mode="json", exclude={"batch_queries", "threads", "memory"})
        made_from = fingerprint("cube", FORMAT, hashes, self._codes_made_from, settings)
        return Template(
            kind=self.spec.identifiers.kind,
            sizes={
                "model": len(manifests),
                "query": len(rows),
                "beam": len(spec.beams),
                "rank": min(max(spec.beams), len(collection)),
                "step": codes.length,
                "candidate": candidates["doc"].shape[1],
            },
            shard_queries=min(spec.shard_queries, len(rows)),
            model={
                "model": np.array(list(manifests)),
                "family": np.array([manifest.family for manifest in manifests.values()]),
                "n_params": np.array([manifest.n_params for manifest in manifests.values()]),
                "n_train": np.array([fact["n_train"] for fact in facts.values()]),
                "train_fraction": np.array([fact["train_fraction"] for fact in facts.values()]),
                "train_flops": np.array([fact["train_flops"] for fact in facts.values()]),
                "precision": np.array([manifest.precision for manifest in manifests.values()]),
                "checkpoint": np.array(list(hashes.values())),
            },
            query={
                "query": np.array([collection.query_ids[row] for row in rows]),
                "text": np.array([collection.queries[row] for row in rows]),
            },
            beam={"beam": np.array(spec.beams)},
            candidates=candidates,
            attributes={
                "fingerprint": made_from,
                "spec": json.loads(self.spec.model_dump_json()),
                "dataset": f"{collection.name} {collection.version}",
                "dataset_hash": collection.content_hash,
                "identifiers_hash": self._codes_made_from,
                "documents": len(collection),
                "versions": {
                    name: version(name)
                    for name in ("genret-dask", "torch", "transformers", "onnx", "zarr", "xarray")
                },
            },
        )

    # --- the run directory --------------------------------------------------------------------

    def _report(self, stage: str, done: float, total: float) -> None:
        if self._progress:
            self._progress(stage, done, total)

    def _check_writable(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise unwritable(self.folder, error) from error


def write_memory(uses: list[MemoryUse], path: Path) -> None:
    """Write what workers held in memory as JSON, and warn of those that went over their budget."""
    for use in uses:
        level = logging.WARNING if use.is_over else logging.INFO
        logger.log(level, "peak memory %s", use)
    partial_file = path.with_name(f"{path.name}.{os.getpid()}.partial")
    text = json.dumps({"memory": [asdict(use) for use in uses]}, indent=1) + "\n"
    partial_file.write_text(text, encoding="utf-8")
    os.replace(partial_file, path)


def write_results(cube: Path, collection: Collection, spec: SweepSpec, folder: Path) -> None:
    """Compute metrics and fits of a cube into a folder, as JSON and trec files."""
    from genret_dask.cube import kinds, open_cube
    from genret_dask.fits.table import fit_records_of
    from genret_dask.metrics.precision import precision_changes_of
    from genret_dask.metrics.queries import reduce_queries
    from genret_dask.metrics.runs import write_qrels, write_run
    from genret_dask.metrics.table import records_of

    found: dict[str, list[dict[str, Any]]] = {name: [] for name in RESULTS}
    draws, seed = spec.fits.bootstrap, spec.seed
    for kind, search, contrast in kinds(open_cube(cube)):
        values = reduce_queries(search, contrast)
        found["metrics"] += records_of(kind, values, draws, seed)
        found["fits"] += fit_records_of(kind, values, draws, seed)
        found["precision"] += precision_changes_of(kind, values, draws, seed)
        trec = folder / "trec" / kind
        trec.mkdir(parents=True)
        write_qrels(contrast, collection.document_ids, trec / "qrels.txt")
        beam = max(spec.inference.beams)
        for model in search["model"].values.tolist():
            path = trec / f"{model}.beam{beam}.run"
            write_run(search, collection.document_ids, path, model=model, beam=beam)
    for name, content in found.items():
        if content or name != "precision":
            text = json.dumps(content, indent=1) + "\n"
            (folder / f"{name}.json").write_text(text, encoding="utf-8")


def _train(task: TrainTask, report: Callable[[float], None]) -> dict[str, Any]:
    from genret_dask.training.loop import train

    return train(task, progress=lambda done, total: report(done / total))
