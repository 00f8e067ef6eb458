"""Start a model from scratch near a latent semantic classifier of its queries.

The rows of text tokens become their term vectors and the rows of codes the centroids of their
documents, both in the span of the largest singular directions of the token-document matrix
(Deerwester et al. 1990), and the attention that reads the query starts as a plain mean. The state
that predicts a code then holds the mean of the query's term vectors before the first step, which
random weights take most of a short training to reach.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import torch
from sklearn.utils.extmath import randomized_svd

from genret_dask.identifiers import Codes
from genret_dask.models.families import Family
from genret_dask.models.tokens import Tokens

ROW_SCALE = 0.1
"""Root mean square of the embedding rows: small enough for the first steps to move them, large
enough for the latent directions to be heard. Best of 0.02, 0.1 and 0.3 on the dev loss."""


def warm_start(
    family: Family,
    model: Any,
    documents: Tokens,
    codes: Codes | None,
    sample: np.ndarray,
    start: int,
) -> None:
    """Set a model's embeddings and reading attention, in place.

    Parameters
    ----------
    family : Family
        The model's.
    documents : Tokens
        Token ids of the sampled documents.
    codes : Codes or None
        Of all documents; None where identifiers are made of text, or their rows start at random.
    sample : int64[n]
        Rows of the sampled documents.
    start : int
        The start token: text rows come before it, code rows after it.
    """
    rows = model.get_input_embeddings().weight
    cells_of, level_sizes = (
        (np.asarray(codes.codes[sample]), codes.level_sizes)
        if codes
        else (np.empty((len(documents.lengths), 0), np.int32), ())
    )
    seen, terms, cells = latent_rows(documents, cells_of, level_sizes, start, rows.shape[1])
    with torch.no_grad():
        rows.mul_(ROW_SCALE / rows.square().mean().sqrt())
        rows[:start][torch.from_numpy(seen)] = torch.from_numpy(terms[seen]) * ROW_SCALE
        told = np.asarray(cells.any(axis=1))  # a sample may lack a code
        rows[start + 1 : start + 1 + len(told)][torch.from_numpy(told)] = (
            torch.from_numpy(cells[told]) * ROW_SCALE
        )
        family.undo_head_scale(model)
        for value, output in family.reading_attention(model):
            if value.weight.shape == output.weight.T.shape:
                torch.nn.init.orthogonal_(value.weight)
                output.weight.copy_(value.weight.T)


def latent_rows(
    documents: Tokens, codes: np.ndarray, level_sizes: tuple[int, ...], vocabulary: int, dim: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embedding rows of unit mean square.

    Parameters
    ----------
    documents : Tokens
        Token ids of every document.
    codes : int32[documents, levels]
    vocabulary : int
        Rows of text tokens.
    dim : int
        Width of the embedding; directions beyond the matrix's rank are zero.

    Returns
    -------
    seen : bool[vocabulary]
        Tokens that tell documents apart: those in some documents but not in all.
    terms : float32[vocabulary, dim]
    cells : float32[sum(level_sizes), dim]
        One row a code, level by level: the mean of what earlier levels leave over.
    """
    size = len(documents.offsets) - 1
    rows = np.repeat(np.arange(size), documents.lengths)
    counts = scipy.sparse.coo_array(
        (np.ones(len(rows)), (rows, documents.flat)), shape=(size, vocabulary)
    ).tocsr()
    counts.data = 1 + np.log(counts.data)
    frequency = np.bincount(counts.indices, minlength=vocabulary)
    weight = np.log((1 + size) / (1 + frequency))
    matrix = counts @ scipy.sparse.diags_array(weight)
    norms = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    matrix = scipy.sparse.diags_array(1 / np.maximum(norms, 1e-9)) @ matrix

    rank = max(1, min(dim, *(extent - 1 for extent in matrix.shape)))
    left, values, right = randomized_svd(matrix, rank, random_state=0)
    terms = np.zeros((vocabulary, dim))
    terms[:, :rank] = right.T * weight[:, None]
    rest = np.zeros((size, dim))
    rest[:, :rank] = left * values
    rest -= rest.mean(axis=0)
    cells = []
    for level, count in enumerate(level_sizes):
        centroids = np.zeros((count, dim))  # of a level of many cells, the widest of all arrays
        np.add.at(centroids, codes[:, level], rest)
        centroids /= np.maximum(np.bincount(codes[:, level], minlength=count), 1)[:, None]
        rest = rest - centroids[codes[:, level]]
        cells.append(_unit(centroids).astype(np.float32))
    seen = (frequency > 0) & (weight > 0)
    joined = np.concatenate([np.empty((0, dim), dtype=np.float32), *cells])
    return seen, _unit(terms).astype(np.float32), joined


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / max(float(np.sqrt((rows**2).mean())), 1e-9)
