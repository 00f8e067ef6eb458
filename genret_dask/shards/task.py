"""One shard: read its queries, search, score, write whole chunks, mark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from dask.utils import format_bytes
from tokenizers import Tokenizer

from genret_dask.cube.schema import CONTRAST, SEARCH
from genret_dask.cube.store import write_shard
from genret_dask.errors import BudgetError
from genret_dask.inference.beam import Vocabulary
from genret_dask.inference.memory import Decoding
from genret_dask.inference.resident import searcher
from genret_dask.inference.score import score
from genret_dask.inference.session import Session
from genret_dask.models.flops import prefill_flops, step_flops
from genret_dask.models.tokens import Tokens, tokenize
from genret_dask.shards.ledger import Ledger
from genret_dask.shards.plan import ShardTask, batches, padded_widths, runs
from genret_dask.shards.resources import Resources, worker_resources
from genret_dask.shards.usage import MemoryUse
from genret_dask.specs import InferenceSpec


@dataclass(frozen=True)
class SweepContext:
    """What all shards of a sweep share; small, as it travels with every task.

    Attributes
    ----------
    cube, markers, codes : Path
    exports : dict of model name to exported folder
    kind : str
        Identifier kind; the cube's group.
    fingerprint : str
        Of the cube's settings.
    """

    cube: Path
    markers: Path
    codes: Path
    exports: dict[str, Path]
    kind: str
    inference: InferenceSpec
    fingerprint: str

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
        digests = write_shard(context.cube, context.kind, task.model, task.start, arrays)
        context.ledger.mark(task, digests)
    spec = context.inference
    return resources.use(resources.budget(spec.memory_bytes, spec.provider), spec.provider)


def compute_shard(
    task: ShardTask, context: SweepContext, resources: Resources
) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a shard by dataset and variable, each [queries, ...].

    However the memory cuts a shard into batches, rankings are the same; logits are too, bit for
    bit, unless a runtime's kernel rounds a batch of one query differently.
    """
    spec = context.inference
    folder = context.exports[task.name]
    session = resources.session(folder, spec.provider, resources.host.threads_each(spec.threads))
    codes = resources.codes(context.codes)
    texts, candidates = resources.cached(
        ("queries", context.cube, context.fingerprint), lambda: _read_queries(context)
    )
    vocabulary = Vocabulary(
        session.manifest.start_token,
        codes.block_starts + session.manifest.start_token + 1,
        codes.level_sizes,
    )
    tokens = resources.cached(
        ("tokens", folder, task.start, context.fingerprint),
        lambda: _tokens(session, folder, texts[task.start : task.stop], spec.max_tokens),
    )
    documents = candidates[task.start : task.stop]
    decoding = Decoding(
        architecture=session.manifest.architecture,
        graph=session.manifest.graph,
        nodes=(1, *map(len, codes.trie.codes)),
        blocks=codes.level_sizes,
        beams=spec.beams,
    )
    widths = np.unique(padded_widths(tokens.lengths)).tolist()
    splits = _splits(task, decoding, spec, widths, documents.shape[1], resources)

    parts: list[tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]] = []
    for rows, width in batches(tokens.lengths, lambda width: splits[width][0]):
        padded, lengths = tokens.padded(rows, width)
        found = searcher(session)(session, codes.trie, vocabulary, padded, lengths, spec.beams)
        scored = [
            score(session, codes, vocabulary, padded, lengths, documents[rows, first:last])
            for first, last in runs(documents.shape[1], splits[width][1])
        ]
        logit, log_partition = (np.concatenate(part, axis=1) for part in zip(*scored, strict=True))
        parts.append(
            (
                rows,
                {
                    SEARCH: {
                        "token": found.token,
                        "logit": found.logit,
                        "log_partition": found.log_partition,
                        "score": found.score,
                        "doc": found.doc,
                        "flops": search_flops(session, lengths, found.rows_decoded),
                        "rows_decoded": found.rows_decoded.sum(axis=-1),
                    },
                    CONTRAST: {"logit": logit, "log_partition": log_partition},
                },
            )
        )
    return _in_query_order(parts)


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


def search_flops(session: Session, lengths: np.ndarray, rows_decoded: np.ndarray) -> np.ndarray:
    """Operations of a search at each beam size alone; float64 [queries, beams]."""
    architecture = session.manifest.architecture
    prefill = prefill_flops(architecture, lengths)
    steps = np.stack(
        [step_flops(architecture, lengths, step) for step in range(rows_decoded.shape[-1])], axis=-1
    )
    return prefill[:, None] + (rows_decoded * steps[:, None, :]).sum(axis=-1)


def _read_queries(context: SweepContext) -> tuple[list[str], np.ndarray]:
    # Plain zarr: a Dask array would be computed by this very cluster, from inside its task.
    group: Any = zarr.open_group(context.cube, mode="r")[f"{context.kind}/{CONTRAST}"]
    return [str(text) for text in group["text"][:]], group["doc"][:]


def _tokens(session: Session, folder: Path, texts: list[str], max_tokens: int) -> Tokens:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    facts = session.manifest.provenance
    return tokenize(texts, tokenizer, max_tokens, facts["end_token"], empty=facts["empty_token"])


def _in_query_order(
    parts: list[tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]],
) -> dict[str, dict[str, np.ndarray]]:
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return {
        dataset: {
            name: np.concatenate([arrays[dataset][name] for _, arrays in parts])[order]
            for name in variables
        }
        for dataset, variables in parts[0][1].items()
    }
