"""Start a model's embeddings where latent semantic analysis would put them.

The rows of text tokens become their term vectors and the rows of codes the centroids of their
documents, both in the span of the largest singular directions of the token-document matrix
(Deerwester et al. 1990). A query's words then point at its document's codes before the first
step, which random rows take most of a short training to learn.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from sklearn.utils.extmath import randomized_svd

from genret_dask.models.tokens import Tokens


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

    rank = min(dim, *(extent - 1 for extent in matrix.shape))
    left, values, right = randomized_svd(matrix, rank, random_state=0)
    terms = np.zeros((vocabulary, dim))
    terms[:, :rank] = right.T * weight[:, None]
    rest = np.zeros((size, dim))
    rest[:, :rank] = left * values
    rest -= rest.mean(axis=0)
    cells = []
    for level, count in enumerate(level_sizes):
        totals = np.zeros((count, dim))
        np.add.at(totals, codes[:, level], rest)
        members = np.bincount(codes[:, level], minlength=count)
        centroids = totals / np.maximum(members, 1)[:, None]
        rest = rest - centroids[codes[:, level]]
        cells.append(_unit(centroids))
    seen = (frequency > 0) & (weight > 0)
    return seen, _unit(terms).astype(np.float32), np.concatenate(cells).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / max(float(np.sqrt((rows**2).mean())), 1e-9)
