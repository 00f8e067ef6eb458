"""A trie over token sequences in compressed sparse rows.

Level l holds one node for each distinct prefix of l tokens, numbered in lexicographic order, so
nodes of a level are sorted as their prefixes are. Codes have one length: their leaves are the
documents sorted by code. Sequences of any length close with an end token, which is no edge of the
trie: a node may end an identifier and have children.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from genret_dask.identifiers.suffix_array import runs
from genret_dask.storage.arrays import read_array


@dataclass(frozen=True)
class Trie:
    """The constraint of identifiers that are listed, one a document.

    Attributes
    ----------
    children : list of int32[nodes(l) + 1], one a level
        Children of node n of level l are the nodes children[l][n] .. children[l][n + 1] of
        level l + 1.
    codes : list of unsigned[nodes(l + 1)], one a level
        The token on the edge into each node of level l + 1, ascending among siblings; in the
        smallest type that holds the level's tokens.
    documents : int32[identifiers]
        Collection row of each identifier, in the order of their sequences.
    endings : list of int32[nodes(l)], one a level, that of the longest identifiers included
        Place among `documents` of the identifier that ends at each node, -1 where none does.
        Empty where all have one length: the nodes of the last level are those places.
    """

    children: list[np.ndarray]
    codes: list[np.ndarray]
    documents: np.ndarray
    endings: list[np.ndarray] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """Tokens of the longest identifier, its end token left out."""
        return len(self.children)

    @property
    def steps(self) -> int:
        """See `Constraint`."""
        return self.depth + bool(self.endings)

    @property
    def keeps_ended(self) -> bool:
        """See `Constraint`; identifiers of one length end together, whatever the rule."""
        return not self.endings

    @property
    def partial_tokens(self) -> None:
        """See `Constraint`."""

    @classmethod
    def build(cls, codes: np.ndarray, closed: bool = False) -> Trie:
        """Build from unique rows of tokens; O(n log n).

        Parameters
        ----------
        codes : int[documents, levels]
        closed : bool
            Whether each row closes with an end token, which is not among its tokens. Then rows
            may have any length from 1, with -1 behind their last token.

        Raises
        ------
        ValueError
            Two rows are equal, or -1 stands where it may not.
        """
        codes = np.asarray(codes)
        if closed:
            codes = _checked(codes)
        elif codes[:, -1].min() < 0:
            raise ValueError("rows of different length need an end token: closed=True")
        order = lexicographic(codes.astype(np.int64) + 1 if closed else codes)
        ordered = codes[order]
        lengths = (ordered >= 0).sum(axis=1) if closed else np.zeros(0, dtype=np.int64)
        children, edges = [], []
        endings: list[np.ndarray] = []
        # `opens[i]`: row i opens a node of the level at hand; at the root, the first row alone.
        opens = np.zeros(len(ordered), dtype=bool)
        opens[0] = True
        nodes = np.zeros(1, dtype=np.int64)  # the row that opens each node
        for level, column in enumerate(ordered.T):
            if closed:
                endings.append(_endings(lengths, nodes, level))
            opens[1:] |= column[1:] != column[:-1]
            here = opens & (column >= 0) if closed else opens
            after = np.cumsum(here, dtype=np.int32)
            children.append(np.append(after[nodes] - here[nodes], after[-1]))
            nodes = np.flatnonzero(here)
            edges.append(column[here].astype(np.min_scalar_type(column.max())))
        if not opens.all():
            raise ValueError("two documents have the same codes")
        if closed:
            endings.append(_endings(lengths, nodes, len(edges)))
        return cls(children, edges, order.astype(np.int32), endings)

    def root(self, rows: int) -> np.ndarray:
        """See `Constraint.root`; int64[rows]."""
        return np.zeros(rows, dtype=np.int64)

    def expand(self, states: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Constraint.expand`.

        Parameters
        ----------
        states : int64[n]
            Nodes of level `depth`, in any order.
        """
        if depth == self.depth:
            nothing = np.zeros(0, dtype=np.int64)
            return nothing, nothing, nothing
        first = self.children[depth][states]
        counts = self.children[depth][states + 1] - first
        parent, child = runs(first, counts)
        return parent, self.codes[depth][child], child

    def ends(self, states: np.ndarray, depth: int) -> np.ndarray:
        """See `Constraint.ends`."""
        if not self.endings:
            return np.zeros(len(states), dtype=bool)
        return self.endings[depth][states] >= 0

    def found(self, states: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Collection rows of identifiers that a search has completed; int32[n].

        Parameters
        ----------
        states : int64[n]
            The nodes where they end.
        steps : int64[n]
            Their tokens, the end token included.
        """
        if not self.endings:
            return self.documents[states]
        rows = np.empty(len(states), dtype=self.documents.dtype)
        for depth in np.unique(steps) - 1:
            here = steps == depth + 1
            rows[here] = self.documents[self.endings[depth][states[here]]]
        return rows

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files that `load` maps."""
        for name, arrays in self._levels().items():
            for level, array in enumerate(arrays):
                np.save(folder / f"trie.{name}.{level}.npy", array)
        np.save(folder / "trie.documents.npy", self.documents)

    def _levels(self) -> dict[str, Sequence[np.ndarray]]:
        return {"children": self.children, "codes": self.codes, "endings": self.endings}

    @classmethod
    def load(cls, folder: Path) -> Trie:
        """Map the arrays that `save` wrote; processes on a host share their pages."""

        def load(name: str) -> list[np.ndarray]:
            count = len(list(folder.glob(f"trie.{name}.*.npy")))
            names = [f"trie.{name}.{level}.npy" for level in range(count)]
            return [read_array(folder / one, dims=1) for one in names]

        documents = read_array(folder / "trie.documents.npy", dims=1)
        return cls(load("children"), load("codes"), documents, load("endings"))


def _checked(rows: np.ndarray) -> np.ndarray:
    """Drop columns that no row reaches, after checking that -1 stands behind rows alone."""
    inside = rows >= 0
    lengths = inside.sum(axis=1)
    if not lengths.all():
        raise ValueError(f"the identifier of document {int(lengths.argmin())} has no token")
    gaps = np.flatnonzero((inside[:, 1:] & ~inside[:, :-1]).any(axis=1))
    if len(gaps):
        raise ValueError(f"the identifier of document {int(gaps[0])} has -1 before a token")
    return rows[:, : lengths.max()]


def _endings(lengths: np.ndarray, nodes: np.ndarray, level: int) -> np.ndarray:
    """See `Trie.endings`.

    Parameters
    ----------
    lengths : int64[identifiers]
        Of the sorted rows, of which a shorter one stands before those that it begins.
    nodes : int64[nodes]
        The row that opens each node of the level.
    """
    return np.where(lengths[nodes] == level, nodes, -1).astype(np.int32)


def lexicographic(codes: np.ndarray) -> np.ndarray:
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
