"""One shard: read its queries, search, score, write whole chunks, mark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from tokenizers import Tokenizer

from genret_dask.cube.schema import CONTRAST, SEARCH
from genret_dask.cube.store import write_shard
from genret_dask.inference.beam import Vocabulary, search
from genret_dask.inference.score import score
from genret_dask.inference.session import Session
from genret_dask.models.flops import prefill_flops, step_flops
from genret_dask.models.tokens import Tokens, tokenize
from genret_dask.shards.ledger import Ledger
from genret_dask.shards.plan import ShardTask
from genret_dask.shards.resources import Resources, worker_resources
from genret_dask.specs import InferenceSpec

_WIDTH = 8  # queries are padded to a multiple of this many tokens, each to its own


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
) -> dict[str, Any]:
    """Compute and write a shard, unless its marker says that it is there; returns the marker.

    Parameters
    ----------
    resources : Resources, optional
        Those of the current Dask worker by default.
    """
    if (marker := context.ledger.read(task)) is not None:
        return marker
    arrays = compute_shard(task, context, resources or worker_resources())
    digests = write_shard(context.cube, context.kind, task.model, task.start, arrays)
    return context.ledger.mark(task, digests)


def compute_shard(
    task: ShardTask, context: SweepContext, resources: Resources
) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a shard by dataset and variable, each [queries, ...]."""
    spec = context.inference
    folder = context.exports[task.name]
    session = resources.session(folder, spec.provider, spec.threads)
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

    parts: list[tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]] = []
    for rows, width in batches(tokens.lengths, spec.batch_queries):
        padded, lengths = tokens.padded(rows, width)
        found = search(session, codes.trie, vocabulary, padded, lengths, spec.beams)
        logit, log_partition = score(session, codes, vocabulary, padded, lengths, documents[rows])
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


def batches(lengths: np.ndarray, batch_queries: int) -> list[tuple[np.ndarray, int]]:
    """Rows decoded together and their padded width.

    A query's width depends on its own length alone, so that its batch mates change nothing.
    """
    widths = -(-lengths // _WIDTH) * _WIDTH
    found = []
    for width in np.unique(widths)[::-1]:
        rows = np.flatnonzero(widths == width)
        pieces = math.ceil(len(rows) / batch_queries)
        found += [(piece, int(width)) for piece in np.array_split(rows, pieces)]
    return found


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
