"""One shard: read its queries, search, score, write whole chunks, mark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from genret_dask.cube.open import check_codecs
from genret_dask.cube.schema import CONTRAST, SEARCH, Variable
from genret_dask.cube.store import store_at, write_shard
from genret_dask.errors import NumericError
from genret_dask.inference.own import without_own
from genret_dask.inference.session import Session
from genret_dask.kinds.base import Arrays, Decoder, Kind
from genret_dask.kinds.spans_task import SPANS
from genret_dask.models.manifest import fetched_model
from genret_dask.models.reader import Reader
from genret_dask.models.tokens import Tokens
from genret_dask.monitoring.meter import count, phase
from genret_dask.shards.attempts import attempt
from genret_dask.shards.ledger import Ledger
from genret_dask.shards.memory_plan import MemoryPlan, Splits, is_out_of_memory
from genret_dask.shards.plan import ShardTask, batches, runs
from genret_dask.shards.resources import Resources, current_resources
from genret_dask.shards.usage import MemoryUse
from genret_dask.specs import InferenceSpec
from genret_dask.storage.arrays import read_array
from genret_dask.storage.layout import RunLayout

Report = Callable[[float], None]


@dataclass(frozen=True)
class Exported:
    """One model of a sweep, and what it generates.

    Attributes
    ----------
    folder, space : Path
        The exported model, and its identifiers.
    identifiers : Kind
    spans : Path or None
        Where a document has many identifiers: those that stand for each candidate.
    extents : dict of str to int
        Of dimensions of the cube's group that a model's own arrays may not fill: `step`, as another
        model's tokeniser may make longer identifiers, and `rank`.
    """

    folder: Path
    space: Path
    identifiers: Kind
    spans: Path | None = None
    extents: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepContext:
    """What all shards of a sweep share; small, as it travels with every task.

    Attributes
    ----------
    run : RunLayout
    models : dict of (identifier kind, model name) to Exported
    max_tokens : int
        Kept of each query.
    fingerprint : str
        Of the cube's settings.
    corpus : str
        Content hash of the collection.
    within : Path or None
        Where the rows of the documents are that a search is kept to.
    """

    run: RunLayout
    models: dict[tuple[str, str], Exported]
    inference: InferenceSpec
    max_tokens: int
    fingerprint: str
    corpus: str
    within: Path | None = None

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.run.markers)


def run_shard(
    task: ShardTask,
    context: SweepContext,
    report: Report | None = None,
) -> MemoryUse:
    """Compute and write a shard, unless its marker says that it is there.

    Parameters
    ----------
    report : callable, optional
        Gets the share of the queries that are done, now and then.

    Returns
    -------
    MemoryUse
        Of this process, up to now.

    Raises
    ------
    BudgetError
        Not even one query fits into the memory that the process may hold.
    NumericError
        A model gave NaN or infinity; model, query and step are named.
    SpecError
        More threads are asked for than there are cores.
    """
    resources = current_resources()
    ledger = context.ledger
    if ledger.read(task) is None:
        kept = ledger.kept(task)
        digests = {name: sha for sums in kept.values() for name, sha in sums.items()}
        with attempt(context.run.attempts, task.key) as died:
            arrays = compute_shard(task, context, resources, died, report, frozenset(kept))
            with phase("write"):
                digests |= write_shard(context.run.cube, task.kind, task.model, task.start, arrays)
                ledger.mark(task, digests)
        count("write", 1, "shards")
        count("write", task.queries, "queries")
    spec = context.inference
    return resources.use(resources.budget(spec.memory_bytes, spec.provider), spec.provider)


def compute_shard(
    task: ShardTask,
    context: SweepContext,
    resources: Resources,
    died: int = 0,
    report: Report | None = None,
    kept: frozenset[str] = frozenset(),
) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a shard by dataset and variable, each [queries, ...].

    However the memory cuts a shard into batches, rankings are the same; logits are too, bit for
    bit, unless a runtime's kernel rounds a batch of one query differently.

    Parameters
    ----------
    died : int
        Workers that died with the shard; each halves the memory that it may take.
    kept : frozenset of str
        Datasets that are in the cube already, and are left out.
    """
    spec, model = context.inference, context.models[task.kind, task.name]
    session = resources.session(
        model.folder, spec.provider, resources.host.threads_each(spec.threads)
    )
    queries = resources.cached(
        ("queries", context.run.cube, task.kind, context.fingerprint),
        lambda: _read_queries(context.run.cube, task.kind),
    )
    reader = Reader.of_model(
        fetched_model(model.folder) / "tokenizer.json",
        session.manifest.require_reading(),
        context.max_tokens,
    )
    tokens = reader.read(queries.texts[task.start : task.stop])
    documents = queries.candidates[task.start : task.stop]
    decoder = _decoder(model, task, context, session, documents, resources)
    names = queries.names[task.start : task.stop]
    arrays = decode(
        decoder, tokens, task, spec, resources, names, documents.shape[1], died, report, kept
    )
    if SEARCH in arrays:
        own = queries.own[task.start : task.stop]
        arrays[SEARCH] = without_own(arrays[SEARCH], model.identifiers.variables[SEARCH], own)
    return _filled(arrays, model)


def decode(
    decoder: Decoder,
    tokens: Tokens,
    task: ShardTask,
    spec: InferenceSpec,
    resources: Resources,
    names: Sequence[str],
    candidates: int,
    died: int = 0,
    report: Report | None = None,
    kept: frozenset[str] = frozenset(),
) -> dict[str, dict[str, np.ndarray]]:
    """Search and score queries in batches that fit into memory.

    Takes and returns what `compute_shard` does.

    Parameters
    ----------
    tokens : Tokens
        Of the queries.
    names : sequence of str
        What an error calls each query.
    candidates : int
        To score for each query.
    """
    memory = MemoryPlan(task, decoder.decoding, spec, tokens.lengths, candidates)
    room = memory.room(resources, died)

    def named(error: NumericError, rows: np.ndarray) -> NumericError:
        return error.of(f"{task.kind}/{task.name}", names[int(rows[error.row or 0])])

    while True:
        splits = memory.splits(room, resources)
        try:
            return _decode(decoder, tokens, splits, candidates, report, named, kept)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            room = memory.less(splits, error)


def _decode(
    decoder: Decoder,
    tokens: Tokens,
    splits: Splits,
    candidates: int,
    report: Report | None,
    named: Callable[[NumericError, np.ndarray], NumericError],
    kept: frozenset[str],
) -> dict[str, dict[str, np.ndarray]]:
    parts: list[tuple[np.ndarray, dict[str, Arrays]]] = []
    done = 0
    for rows, width in batches(tokens.lengths, lambda width: splits[width][0]):
        padded, lengths = tokens.padded(rows, width)
        found: dict[str, Arrays] = {}
        try:
            if SEARCH not in kept:
                found[SEARCH] = decoder.search(padded, lengths)
            if CONTRAST not in kept:
                scored = [
                    decoder.score(padded, lengths, rows, slice(first, last))
                    for first, last in runs(candidates, splits[width][1])
                ]
                found[CONTRAST] = {
                    name: np.concatenate([one[name] for one in scored], axis=1)
                    for name in scored[0]
                }
        except NumericError as error:
            raise named(error, rows) from error
        parts.append((rows, found))
        done += len(rows)
        if report:
            report(done / len(tokens.lengths))
    return _in_query_order(parts)


def _decoder(
    model: Exported,
    task: ShardTask,
    context: SweepContext,
    session: Session,
    documents: np.ndarray,
    resources: Resources,
) -> Decoder:
    kind = model.identifiers
    space = resources.space(kind, model.space, context.within)
    kind.require_match(space, session.manifest, context.corpus, model.space)
    chosen = None
    if model.spans is not None:
        path = resources.fetched(model.spans) / SPANS
        chosen = np.asarray(read_array(path, dims=4)[task.start : task.stop])
    return kind.decoder(session, space, context.inference.beams, documents, chosen)


def _filled(
    arrays: dict[str, dict[str, np.ndarray]], model: Exported
) -> dict[str, dict[str, np.ndarray]]:
    """Fill dimensions up to their extents in the cube."""

    def fill(array: np.ndarray, variable: Variable) -> np.ndarray:
        dims = variable.dims[1:]  # a shard is of one model
        extents = [
            model.extents.get(dim, size) for dim, size in zip(dims, array.shape, strict=True)
        ]
        missing = [(0, extent - size) for extent, size in zip(extents, array.shape, strict=True)]
        return (
            np.pad(array, missing, constant_values=variable.fill)
            if any(more for _, more in missing)
            else array
        )

    described = model.identifiers.variables
    return {
        dataset: {name: fill(array, described[dataset][name]) for name, array in found.items()}
        for dataset, found in arrays.items()
    }


@dataclass(frozen=True)
class _Queries:
    """The queries of a cube's group: ids, texts, own documents, and candidates of each."""

    names: list[str]
    texts: list[str]
    own: np.ndarray
    candidates: np.ndarray


def _read_queries(cube: Path, kind: str) -> _Queries:
    # Plain zarr: a Dask array would be computed by this very cluster, from inside its task.
    store = store_at(cube, read_only=True)
    group: Any = zarr.open_group(store, path=f"{kind}/{CONTRAST}", mode="r")
    check_codecs(group, cube)
    names, texts = ([str(one) for one in group[name][:]] for name in ("query", "text"))
    return _Queries(names, texts, group["own"][:], group["doc"][:])


def _in_query_order(
    parts: list[tuple[np.ndarray, dict[str, Arrays]]],
) -> dict[str, dict[str, np.ndarray]]:
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return {
        dataset: {
            name: np.concatenate([arrays[dataset][name] for _, arrays in parts])[order]
            for name in variables
        }
        for dataset, variables in parts[0][1].items()
    }
