"""The check that ends every export: the graphs against PyTorch, on a seeded random walk."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from genret_dask.errors import ParityError
from genret_dask.inference.session import Session
from genret_dask.models.manifest import Parity

logger = logging.getLogger(__name__)

LENGTHS = (1, 4, 17)
BEAMS = (1, 3, 4, 4, 2)


def check_parity(
    session: Session, model: Any, *, tolerance: float, seed: int = 0, max_rows: int = 4096
) -> Parity:
    """Walk `prefill` and `step` over random queries, beams and parents, and compare.

    Parameters
    ----------
    session : Session
        The exported graphs.
    model : transformers.PreTrainedModel
        The same weights in PyTorch, float32, in evaluation mode. It computes in float64 here, so
        that the difference is the graphs' own error: a deep model's float32 error is as large.
    tolerance : float
        Largest accepted |difference| in log-probability, in nats.
    max_rows : int
        Vocabulary rows compared a step; the block is drawn at random.

    Raises
    ------
    ParityError
        The difference is larger, or not a number.
    """
    try:
        worst, compared = _largest_difference(session, model.double(), seed, max_rows)
    finally:
        model.float()
    family = session.manifest.family
    logger.info("parity: max |difference| %.2e in %d log-probabilities", worst, compared)
    if not worst <= tolerance:
        raise ParityError(
            f"the exported {family} graphs differ from PyTorch by {worst:.2e} in log-probability",
            expected=f"at most {tolerance:.2e}",
            fix="nothing was published; raise export.tolerance only if you know why they differ",
        )
    return Parity(max_difference=worst, tolerance=tolerance, compared=compared)


def _largest_difference(
    session: Session, model: Any, seed: int, max_rows: int
) -> tuple[float, int]:
    """The largest |difference|, and how many log-probabilities were compared."""
    manifest = session.manifest
    rng = np.random.default_rng(seed)
    vocab, queries = manifest.vocab_size, len(LENGTHS)
    tokens = rng.integers(0, vocab, (queries, max(LENGTHS)))
    state = session.prefill(tokens, np.array(LENGTHS))
    prefixes = np.zeros((queries, 1, 0), dtype=np.int64)
    worst, compared = 0.0, 0
    for step, beams in enumerate(BEAMS):
        parents = rng.integers(0, prefixes.shape[1], (queries, beams))
        new = rng.integers(0, vocab, (queries, beams))
        if step == 0:
            new[:] = manifest.start_token
        prefixes = np.take_along_axis(prefixes, parents[..., None], axis=1)
        prefixes = np.concatenate([prefixes, new[..., None]], axis=-1)
        start = int(rng.integers(0, max(1, vocab - max_rows + 1)))
        rows = (start, min(vocab, start + max_rows))
        logits, partition, state = session.step(state, new, parents, rows)
        ours = logits.astype(np.float64) - partition[..., None]
        for query, length in enumerate(LENGTHS):
            theirs = log_probabilities(
                model, manifest.architecture.kind, tokens[query, :length], prefixes[query]
            )
            difference = np.abs(ours[query] - theirs[:, -1, rows[0] : rows[1]]).max()
            worst = float(np.maximum(worst, difference))  # keeps a NaN
            compared += ours[query].size
    return worst, compared


def log_probabilities(model: Any, kind: str, query: np.ndarray, prefixes: np.ndarray) -> np.ndarray:
    """Teacher-forced log-probabilities of one query's prefixes.

    Parameters
    ----------
    query : int64[length]
    prefixes : int64[rows, steps]
        Decoder inputs, the start token first.

    Returns
    -------
    float64[rows, steps, vocabulary]
    """
    source = torch.from_numpy(np.tile(query, (len(prefixes), 1)))
    target = torch.from_numpy(prefixes)
    with torch.inference_mode():
        if kind == "encoder-decoder":
            logits = model(input_ids=source, decoder_input_ids=target).logits
        else:
            logits = model(input_ids=torch.cat([source, target], dim=1)).logits
            logits = logits[:, len(query) :]
    return torch.log_softmax(logits.double(), dim=-1).numpy()
