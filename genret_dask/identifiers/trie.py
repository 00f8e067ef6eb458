"""A trie over fixed-length codes in compressed sparse rows.

Level l holds one node for each distinct prefix of l codes, numbered in lexicographic order, so a
node's number orders its prefix and the leaves are the documents sorted by code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genret_dask.storage.arrays import read_array


@dataclass(frozen=True)
class Trie:
    """The constraint of code identifiers.

    Attributes
    ----------
    children : list of int32[nodes(l) + 1], one a level
        Children of node n of level l are the nodes children[l][n] .. children[l][n + 1] of
        level l + 1.
    codes : list of unsigned[nodes(l + 1)], one a level
        The code on the edge into each node of level l + 1, ascending among siblings; in the
        smallest type that holds the level's codes.
    documents : int32[leaves]
        Collection row of each leaf.
    """

    children: list[np.ndarray]
    codes: list[np.ndarray]
    documents: np.ndarray

    @property
    def depth(self) -> int:
        return len(self.children)

    @classmethod
    def build(cls, codes: np.ndarray) -> Trie:
        """Build from unique rows of codes, int [documents, levels]; O(n log n).

        Raises
        ------
        ValueError
            Two rows are equal.
        """
        order = _lexicographic(codes)
        ordered = np.asarray(codes)[order]
        children, edges = [], []
        # `opens[i]`: row i opens a node of the level at hand; at the root, the first row alone.
        opens = np.zeros(len(ordered), dtype=bool)
        opens[0] = True
        for column in ordered.T:
            parents = np.flatnonzero(opens)
            opens[1:] |= column[1:] != column[:-1]
            node = np.cumsum(opens, dtype=np.int32) - np.int32(1)
            children.append(np.append(node[parents], node[-1] + np.int32(1)))
            edges.append(column[opens].astype(np.min_scalar_type(column.max())))
        if len(edges[-1]) != len(ordered):
            raise ValueError("two documents have the same codes")
        return cls(children, edges, order.astype(np.int32))

    def expand(self, level: int, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Children of nodes of one level.

        Parameters
        ----------
        level : int
            Codes already chosen, 0 at the root.
        nodes : int64[n]
            Nodes of that level.

        Returns
        -------
        parent : int64[c]
            Index into `nodes` of each child's parent, ascending.
        code : unsigned[c]
            Code on the edge to the child.
        child : int64[c]
            The child's number in level + 1.
        """
        first = self.children[level][nodes]
        counts = self.children[level][nodes + 1] - first
        parent = np.repeat(np.arange(len(nodes)), counts)
        ends = np.cumsum(counts)
        child = np.arange(len(parent)) + np.repeat(first - (ends - counts), counts)
        return parent, self.codes[level][child], child

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files that `load` maps."""
        for level in range(self.depth):
            np.save(folder / f"trie.children.{level}.npy", self.children[level])
            np.save(folder / f"trie.codes.{level}.npy", self.codes[level])
        np.save(folder / "trie.documents.npy", self.documents)

    @classmethod
    def load(cls, folder: Path) -> Trie:
        """Map the arrays that `save` wrote; processes on a host share their pages."""
        depth = len(list(folder.glob("trie.children.*.npy")))

        def load(name: str) -> np.ndarray:
            return read_array(folder / name, dims=1)

        return cls(
            [load(f"trie.children.{level}.npy") for level in range(depth)],
            [load(f"trie.codes.{level}.npy") for level in range(depth)],
            load("trie.documents.npy"),
        )


def _lexicographic(codes: np.ndarray) -> np.ndarray:
    """The order that sorts rows; as many levels as fit are compared at once, as one integer."""
    words: list[np.ndarray] = []
    left = 0  # bits free in the last word
    for column in np.asarray(codes).T:
        bits = max(1, int(column.max()).bit_length())
        if bits > left:
            words.append(np.zeros(len(codes), dtype=np.uint64))
            left = 64
        words[-1] = words[-1] << np.uint64(bits) | column.astype(np.uint64)
        left -= bits
    return np.argsort(words[0]) if len(words) == 1 else np.lexsort(words[::-1])
