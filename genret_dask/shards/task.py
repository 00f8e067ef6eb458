"""One shard: read its queries, search, score, write whole chunks, mark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from dask.utils import format_bytes

from genret_dask.arrays import read_array
from genret_dask.cube.schema import CONTRAST, SEARCH
from genret_dask.cube.store import store_at, write_shard
from genret_dask.errors import BudgetError
from genret_dask.inference.memory import Decoding
from genret_dask.inference.session import Session
from genret_dask.models.manifest import fetched_model
from genret_dask.models.tokens import Tokens, closing_tokens, read_tokenizer, tokenize
from genret_dask.monitoring.meter import count, phase
from genret_dask.shards.decoders import Arrays, CodeDecoder, Decoder, NgramDecoder, check_index
from genret_dask.shards.ledger import Ledger
from genret_dask.shards.plan import ShardTask, batches, padded_widths, runs
from genret_dask.shards.resources import Resources, worker_resources
from genret_dask.shards.usage import MemoryUse
from genret_dask.specs import IdentifiersSpec, InferenceSpec, NgramsIdentifiers


@dataclass(frozen=True)
class Exported:
    """One model of a sweep, and what it generates.

    Attributes
    ----------
    folder, space : Path
        The exported model, and its identifiers.
    identifiers : CodesIdentifiers or NgramsIdentifiers
    spans : Path or None
        For n-grams: the spans of the candidates.
    """

    folder: Path
    space: Path
    identifiers: IdentifiersSpec
    spans: Path | None = None


@dataclass(frozen=True)
class SweepContext:
    """What all shards of a sweep share; small, as it travels with every task.

    Attributes
    ----------
    cube, markers : Path
    models : dict of (identifier kind, model name) to Exported
    fingerprint : str
        Of the cube's settings.
    corpus : str
        Content hash of the collection.
    """

    cube: Path
    markers: Path
    models: dict[tuple[str, str], Exported]
    inference: InferenceSpec
    fingerprint: str
    corpus: str

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.markers, self.fingerprint)


def run_shard(
    task: ShardTask, context: SweepContext, resources: Resources | None = None
) -> MemoryUse:
    """Compute and write a shard, unless its marker says that it is there.

    Parameters
    ----------
    resources : Resources, optional
        Those of the current Dask worker by default.

    Returns
    -------
    MemoryUse
        Of this process, up to now.

    Raises
    ------
    BudgetError
        Not even one query fits into the memory that the process may hold.
    SpecError
        More threads are asked for than there are cores.
    """
    resources = resources or worker_resources()
    if context.ledger.read(task) is None:
        arrays = compute_shard(task, context, resources)
        with phase("write"):
            digests = write_shard(context.cube, task.kind, task.model, task.start, arrays)
            context.ledger.mark(task, digests)
        count("write", 1, "shards")
        count("write", task.queries, "queries")
    spec = context.inference
    return resources.use(resources.budget(spec.memory_bytes, spec.provider), spec.provider)


def compute_shard(
    task: ShardTask, context: SweepContext, resources: Resources
) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a shard by dataset and variable, each [queries, ...].

    However the memory cuts a shard into batches, rankings are the same; logits are too, bit for
    bit, unless a runtime's kernel rounds a batch of one query differently.
    """
    spec, model = context.inference, context.models[task.kind, task.name]
    session = resources.session(
        model.folder, spec.provider, resources.host.threads_each(spec.threads)
    )
    texts, candidates = resources.cached(
        ("queries", context.cube, task.kind, context.fingerprint),
        lambda: _read_queries(context.cube, task.kind),
    )
    tokens = resources.cached(
        ("tokens", model.folder, task.start, context.fingerprint),
        lambda: _tokens(session, model.folder, texts[task.start : task.stop], spec.max_tokens),
    )
    documents = candidates[task.start : task.stop]
    decoder = _decoder(model, task, context, session, documents, resources)
    widths = np.unique(padded_widths(tokens.lengths)).tolist()
    columns = documents.shape[1]
    splits = _splits(task, decoder.decoding, spec, widths, columns, resources)

    parts: list[tuple[np.ndarray, dict[str, Arrays]]] = []
    for rows, width in batches(tokens.lengths, lambda width: splits[width][0]):
        padded, lengths = tokens.padded(rows, width)
        found = decoder.search(padded, lengths)
        scored = [
            decoder.score(padded, lengths, rows, slice(first, last))
            for first, last in runs(columns, splits[width][1])
        ]
        joined = {name: np.concatenate([one[name] for one in scored], axis=1) for name in scored[0]}
        parts.append((rows, {SEARCH: found, CONTRAST: joined}))
    return _in_query_order(parts)


def _decoder(
    model: Exported,
    task: ShardTask,
    context: SweepContext,
    session: Session,
    documents: np.ndarray,
    resources: Resources,
) -> Decoder:
    beams = context.inference.beams
    if not isinstance(model.identifiers, NgramsIdentifiers):
        return CodeDecoder(session, resources.codes(model.space), beams, documents)
    index = resources.index(model.space)
    check_index(index, session, context.corpus, model.space)
    spans = np.empty((*documents.shape, 0, 2), dtype=np.int32)
    if model.spans is not None:
        path = resources.fetched(model.spans) / "candidates.npy"
        spans = read_array(path, dims=4)[task.start : task.stop]
    return NgramDecoder(session, index, model.identifiers, beams, documents, np.asarray(spans))


def _splits(
    task: ShardTask,
    decoding: Decoding,
    spec: InferenceSpec,
    widths: list[int],
    candidates: int,
    resources: Resources,
) -> dict[int, tuple[int, int]]:
    """Queries and candidates that are decoded together, by padded width, within the budget.

    Raises
    ------
    BudgetError
        Not even one query fits.
    """
    widest = max(widths)
    kept = task.queries * decoding.result_bytes(candidates)
    wanted = kept + spec.batch_queries * decoding.query_bytes(widest, candidates)
    budget = resources.budget(spec.memory_bytes, spec.provider)
    room = resources.room(budget, wanted)
    splits = {
        width: decoding.split(width, candidates, room - kept, spec.batch_queries)
        for width in widths
    }
    if splits[widest] == (0, 0):
        least = kept + decoding.query_bytes(widest, 1)
        raise BudgetError(
            f"{task.name} with beams up to {max(spec.beams)} takes {format_bytes(least)} for one "
            f"query of {widest} tokens and its shard's results; the memory budget of "
            f"{format_bytes(budget or 0)} leaves a task {format_bytes(room)} beside the process "
            "and its models",
            expected=f"a budget of {format_bytes(resources.needed(least))} a worker, or more",
            fix="give a larger --memory (inference.memory), workers with fewer threads, smaller "
            "beams, or a smaller inference.shard_queries",
        )
    resources.expect(
        kept
        + max(
            queries * decoding.query_bytes(width, together)
            for width, (queries, together) in splits.items()
        )
    )
    return splits


def _read_queries(cube: Path, kind: str) -> tuple[list[str], np.ndarray]:
    # Plain zarr: a Dask array would be computed by this very cluster, from inside its task.
    group: Any = zarr.open_group(store_at(cube, read_only=True), mode="r")[f"{kind}/{CONTRAST}"]
    return [str(text) for text in group["text"][:]], group["doc"][:]


def _tokens(session: Session, folder: Path, texts: list[str], max_tokens: int) -> Tokens:
    end, empty = closing_tokens(session.manifest.provenance)
    tokenizer = read_tokenizer(fetched_model(folder) / "tokenizer.json")
    return tokenize(texts, tokenizer, max_tokens, end, empty)


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
