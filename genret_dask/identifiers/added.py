"""Codes of documents that are added to a corpus: near cells with room, and no new vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from genret_dask.errors import DatasetError
from genret_dask.identifiers.codes import Codes
from genret_dask.identifiers.quantisers.base import Quantiser
from genret_dask.identifiers.trie import Trie
from genret_dask.identifiers.unique import in_order
from genret_dask.identifiers.vectors import BLOCK


def added_cells(
    known: Codes, vectors: np.ndarray, centroids: list[np.ndarray], quantiser: Quantiser
) -> np.ndarray:
    """Give documents codes beside those that are known.

    Each level's cell is the nearest that models have a token for. Where too many documents share
    all of them, it is the next nearest of the last quantised level that has room, then of the level
    before.

    Parameters
    ----------
    known : Codes
        Of the documents that there were.
    vectors : float32[added, dim]
    centroids : list of float32[codes, dim]
        Of each quantised level.

    Returns
    -------
    int32[added, levels]

    Raises
    ------
    DatasetError
        All codes that the models have tokens for are given.
    """
    quantised = len(centroids)
    most = known.level_sizes[quantised] if known.length > quantised else 1
    centroids = [one[: known.level_sizes[level]] for level, one in enumerate(centroids)]
    cells = np.empty((len(vectors), quantised), dtype=np.int32)
    for first in range(0, len(vectors), BLOCK):
        block, own = vectors[first : first + BLOCK], cells[first : first + BLOCK]
        for level in range(quantised):
            found = quantiser.distances(block, centroids[: level + 1], own[:, :level])
            own[:, level] = found.argmin(axis=1)
    number = _running_numbers(known.codes[:, :quantised], cells)
    without_room = np.flatnonzero(number >= most)
    if len(without_room):
        added = Counter(map(tuple, np.delete(cells, without_room, axis=0).tolist()))
    for row in without_room.tolist():
        for path in _paths(vectors[row], centroids, quantiser, []):
            held = _held(known.trie, path, known.length == quantised) + added[*path]
            if held < most:
                cells[row], number[row] = path, held
                added[*path] += 1
                break
        else:
            raise DatasetError(
                f"{len(vectors)} added documents find no codes: all are given",
                expected=f"at most {most} documents that share all quantised cells",
                fix="train models of all documents, with more levels or codes",
            )
    return np.column_stack([cells, number]) if known.length > quantised else cells


def _running_numbers(known: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Number each row among equal ones, those that are known first; int32[added]."""
    order, keys = in_order(np.concatenate([known, cells]))
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    sizes = np.diff(np.append(starts, len(keys)))
    number = np.empty(len(keys), dtype=np.int32)
    number[order] = np.arange(len(keys)) - np.repeat(starts, sizes)
    return number[len(known) :]


def _paths(
    vector: np.ndarray, centroids: list[np.ndarray], quantiser: Quantiser, prefix: list[int]
) -> Iterator[list[int]]:
    """Yield quantised cells of every level below a prefix, the nearest of each level first."""
    level = len(prefix)
    before = np.array([prefix], dtype=np.int64)
    distances = quantiser.distances(vector[None], centroids[: level + 1], before)[0]
    for cell in distances.argsort(kind="stable").tolist():
        if level + 1 == len(centroids):
            yield [*prefix, cell]
        else:
            yield from _paths(vector, centroids, quantiser, [*prefix, cell])


def _held(trie: Trie, path: list[int], is_unique: bool) -> int:
    """Count the known documents that have all of some quantised cells."""
    node = 0
    for depth, cell in enumerate(path):
        first, stop = trie.children[depth][node : node + 2]
        edges = trie.codes[depth][first:stop]
        place = int(np.searchsorted(edges, cell))
        if place == len(edges) or edges[place] != cell:
            return 0
        node = int(first) + place
    if is_unique:
        return 1
    first, stop = trie.children[len(path)][node : node + 2]
    return int(stop - first)
