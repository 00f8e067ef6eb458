"""A suffix array over a token stream: where a prefix occurs, and which tokens may follow it.

The suffixes that begin with a given prefix are neighbours in the array (Manber and Myers, 1993,
"Suffix arrays: a new method for on-line string searches"), so a prefix is a half-open interval of
it, and one token more is a narrower interval inside. Token 0 separates texts; no prefix holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BYTES = 14
"""Of memory that `SuffixArray.build` takes for a token of 16 bits, the stream left out."""

_CHUNK = 2**22  # suffixes that are looked at together


def runs(firsts: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List the places of runs: of each place its run, ascending, and the place; both int64.

    Examples
    --------
    >>> runs(np.array([5, 0]), np.array([2, 1]))
    (array([0, 0, 1]), array([5, 6, 0]))
    """
    row = np.repeat(np.arange(len(firsts)), widths)
    before = np.cumsum(widths) - widths
    return row, np.arange(len(row)) + np.repeat(firsts - before, widths)


@dataclass(frozen=True)
class SuffixArray:
    """The constraint of n-gram identifiers over one stream.

    Attributes
    ----------
    tokens : uint16 or uint32[n]
        The stream, each text closed by 0.
    suffixes : int32 or int64[m]
        Positions in the stream, in the order of the suffixes that begin there. Those with fewer
        tokens than an identifier needs are left out, so that no prefix leads nowhere.
    heads : int64[vocabulary + 2]
        Suffixes that begin with token t are ``heads[t]`` to ``heads[t + 1]``.
    """

    tokens: np.ndarray
    suffixes: np.ndarray
    heads: np.ndarray

    @classmethod
    def build(cls, tokens: np.ndarray, vocabulary: int, least: int = 1) -> SuffixArray:
        """Sort the suffixes of a stream; O(n log n), 5 to 7 million tokens a second and core.

        Takes `BYTES` of memory a token of 16 bits beside the stream, and twice that of 32 bits.

        Parameters
        ----------
        tokens : unsigned[n]
            From 0, which separates texts and closes the stream, to `vocabulary`.
        vocabulary : int
        least : int
            Tokens that a suffix has before its separator, or more.

        Raises
        ------
        ValueError
            The stream is open, or has a token above `vocabulary`.
        """
        from pydivsufsort import divsufsort

        if not len(tokens) or tokens[-1] != 0:
            raise ValueError("a stream must end with the separator 0")
        if tokens.max() > vocabulary:
            raise ValueError(f"token {tokens.max()} is above the vocabulary of {vocabulary}")
        enough = np.ones(len(tokens), dtype=bool)
        ends = np.flatnonzero(tokens == 0)
        for back in range(least):
            enough[ends[ends >= back] - back] = False
        counts = np.zeros(vocabulary + 1, dtype=np.int64)
        for first in range(0, len(tokens), _CHUNK):
            part = slice(first, first + _CHUNK)
            counts += np.bincount(tokens[part][enough[part]], minlength=vocabulary + 1)
        # As bytes, the first of each token being its highest: suffixes of tokens are every other.
        letters = tokens.astype(tokens.dtype.newbyteorder(">")).view(np.uint8)
        suffixes = divsufsort(letters)
        del letters
        size = 0
        for first in range(0, len(suffixes), _CHUNK):
            found, byte = np.divmod(suffixes[first : first + _CHUNK], tokens.itemsize)
            found = found[byte == 0]
            found = found[enough[found]]
            suffixes[size : size + len(found)] = found  # never ahead of what is still to be read
            size += len(found)
        return cls(tokens, suffixes[:size], np.concatenate([[0], np.cumsum(counts)]))

    def within(self, kept: np.ndarray) -> SuffixArray:
        """Return the suffixes that begin at some places, in their order.

        Parameters
        ----------
        kept : bool[n]
            Of the stream.
        """
        counts = np.zeros(len(self.heads) - 1, dtype=np.int64)
        found = []
        for first in range(0, len(self.suffixes), _CHUNK):
            suffixes = self.suffixes[first : first + _CHUNK]
            found.append(suffixes[kept[suffixes]])
            counts += np.bincount(self.tokens[found[-1]], minlength=len(counts))
        suffixes = np.concatenate([self.suffixes[:0], *found])
        return SuffixArray(self.tokens, suffixes, np.concatenate([[0], np.cumsum(counts)]))

    def children(
        self, low: np.ndarray, high: np.ndarray, depth: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Every token that follows each prefix, by reading its interval from end to end.

        Parameters
        ----------
        low, high : int64[n]
            Intervals; time and memory go with the sum of their widths.
        depth : int
            Tokens of every prefix.

        Returns
        -------
        row : int64[c]
            Prefix of each child, ascending.
        token : int64[c]
            Ascending within a row; separators are left out.
        low, high : int64[c]
            The child's interval.
        """
        row, place = runs(low, high - low)
        token = self.tokens[self.suffixes[place] + depth].astype(np.int64)
        opens = np.ones(len(row), dtype=bool)
        opens[1:] = (row[1:] != row[:-1]) | (token[1:] != token[:-1])
        first = np.flatnonzero(opens)
        sizes = np.diff(np.append(first, len(row)))
        kept = token[first] > 0
        first, sizes = first[kept], sizes[kept]
        return row[first], token[first], place[first], place[first] + sizes

    def refine(
        self, low: np.ndarray, high: np.ndarray, depth: int, token: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Intervals of prefixes made one token longer, by binary search; empty where none occurs.

        Parameters
        ----------
        low, high, token : int64[n]
            Each prefix's interval and the token to append, from 1.
        depth : int
            Tokens of every prefix.
        """
        if depth == 0:  # the whole array: its first tokens are counted
            found = high > low
            return np.where(found, self.heads[token], 0), np.where(found, self.heads[token + 1], 0)
        first = self._search(low, high, depth, token)
        inside = np.flatnonzero(first < high)
        value = self.tokens[self.suffixes[first[inside]] + depth]
        inside = inside[value == token[inside]]
        last = first.copy()
        last[inside] = self._search(first[inside], high[inside], depth, token[inside] + 1)
        return first, last

    def _search(
        self, low: np.ndarray, high: np.ndarray, depth: int, token: np.ndarray
    ) -> np.ndarray:
        """First place in each interval whose suffix has `token` or a larger one at `depth`."""
        low, high = low.copy(), high.copy()
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            # A search that is closed may look behind the end of an array; it stays as it is.
            position = self.suffixes.take(middle, mode="clip") + depth
            smaller = (self.tokens.take(position, mode="clip") < token) & (low < high)
            low = np.where(smaller, middle + 1, low)
            high = np.where(smaller, high, middle)
        return low
