"""What can be counted of identifiers that are there: of a trie of any kind, and of token streams.

All take linear time, but for the sort of one number a document, and no Python object a document.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from genret_dask.identifiers.stream import Stream
from genret_dask.identifiers.trie import Trie

_CHUNK = 2**22  # tokens that are looked at together


# --- tries ----------------------------------------------------------------------------------------


def prefix_groups(trie: Trie) -> list[np.ndarray]:
    """Count the identifiers that begin with each prefix of 1 to `trie.depth` tokens.

    Returns
    -------
    list of int64[nodes], one a length
        In the order of the trie's nodes. Where all identifiers have one length, each sums to their
        number.
    """
    below = _ending(trie, trie.depth)
    found = [below]
    for level in range(trie.depth - 1, 0, -1):
        below = _of_children(trie, level, below) + _ending(trie, level)
        found.append(below)
    return found[::-1]


def identifier_lengths(trie: Trie) -> np.ndarray:
    """Count identifiers by their tokens, the end token left out; int64[trie.depth + 1]."""
    return np.array([_ending(trie, level).sum() for level in range(trie.depth + 1)])


def sharing_all_but_last(trie: Trie) -> int:
    """Count the identifiers that share all tokens but the last with another of their length."""
    total = 0
    for level in range(trie.depth):
        siblings = _of_children(trie, level, _ending(trie, level + 1))
        total += int(siblings[siblings > 1].sum())
    return total


def level_records(trie: Trie, sizes: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Describe each level of a trie.

    Parameters
    ----------
    sizes : sequence of int, optional
        Cells of each level; by default as many as identifiers have there.

    Returns
    -------
    list of dict
        level (from 1), cells, dead (cells that no identifier has), entropy (in bits, of the cell
        of an identifier), entropy_of_equals (log2 of the cells: were all as frequent), prefixes
        (that end at the level), and group_mean, group_median and group_largest, of the identifiers
        that share such a prefix.
    """
    found = []
    for level, groups in enumerate(prefix_groups(trie)):
        tokens = np.asarray(trie.codes[level])
        counts = np.bincount(tokens, groups, minlength=sizes[level] if sizes else 0)
        used = counts[counts > 0]
        cells = int(sizes[level]) if sizes else len(used)
        share = used / used.sum()
        found.append(
            {
                "level": level + 1,
                "cells": cells,
                "dead": cells - len(used),
                "entropy": abs(float((share * np.log2(share)).sum())),
                "entropy_of_equals": math.log2(cells),
                "prefixes": len(groups),
                "group_mean": float(groups.mean()),
                "group_median": float(np.median(groups)),
                "group_largest": int(groups.max()),
            }
        )
    return found


def trie_facts(trie: Trie, documents: int) -> dict[str, Any]:
    """Describe a trie of identifiers of so many documents as a whole.

    Returns
    -------
    dict
        tokens_least, tokens_mean and tokens_most of an identifier; sharing_all_but_last_token, as
        function of that name; unreachable, the documents that no identifier leads to.
    """
    counts = identifier_lengths(trie)
    lengths, there = np.arange(len(counts)), np.flatnonzero(counts)
    reached = np.zeros(documents, dtype=bool)
    reached[trie.documents] = True
    return {
        "tokens_least": int(there[0]),
        "tokens_mean": float((counts * lengths).sum() / counts.sum()),
        "tokens_most": int(there[-1]),
        "sharing_all_but_last_token": sharing_all_but_last(trie),
        "unreachable": documents - int(reached.sum()),
    }


def _ending(trie: Trie, level: int) -> np.ndarray:
    """How many identifiers end at each node of a level, 0 or 1; int64[nodes]."""
    if trie.endings:
        return (np.asarray(trie.endings[level]) >= 0).astype(np.int64)
    nodes = 1 if level == 0 else len(trie.codes[level - 1])
    return np.full(nodes, int(level == trie.depth), dtype=np.int64)


def _of_children(trie: Trie, level: int, counts: np.ndarray) -> np.ndarray:
    """Sum what the nodes of level `level + 1` count, by their parents; int64[nodes]."""
    before = np.concatenate([[0], np.cumsum(counts)])
    return np.diff(before[trie.children[level]])


# --- token streams --------------------------------------------------------------------------------


def distinct_tokens(streams: Iterable[Stream], vocabulary: int) -> int:
    """Count the tokens of a vocabulary that occur."""
    occurs = np.zeros(vocabulary + 1, dtype=bool)
    for stream in streams:
        for first in range(0, len(stream.tokens), _CHUNK):
            occurs[stream.tokens[first : first + _CHUNK]] = True
    return int(occurs[1:].sum())


def shared_streams(streams: Iterable[Stream]) -> int:
    """Count the documents all of whose tokens are those of another, its texts taken together.

    Documents are compared by hashes of 64 bits: of ten million different ones, two are taken for
    equal once in 400,000 times.
    """
    hashes = [_hashes(stream) for stream in streams]
    counts = np.unique(np.concatenate(hashes), return_counts=True)[1]
    return int(counts[counts > 1].sum())


def _hashes(stream: Stream) -> np.ndarray:
    """A number for each document that has a text here, by its tokens in their order; uint64."""
    opens = np.flatnonzero(np.diff(stream.documents, prepend=-1))
    firsts = stream.starts[opens]
    if not len(firsts):
        return np.empty(0, dtype=np.uint64)
    ends = np.append(firsts[1:], len(stream.tokens))
    chunk, found = firsts // _CHUNK, np.empty(len(firsts), dtype=np.uint64)
    bounds = np.flatnonzero(np.append(True, chunk[1:] != chunk[:-1]))
    for low, high in zip(bounds, np.append(bounds[1:], len(firsts)), strict=True):
        first, starts = firsts[low], firsts[low:high] - firsts[low]
        tokens = stream.tokens[first : ends[high - 1]].astype(np.uint64)
        place = np.arange(len(tokens)) - np.repeat(starts, ends[low:high] - firsts[low:high])
        mixed = _mixed(tokens << np.uint64(32) | place.astype(np.uint64))
        found[low:high] = np.add.reduceat(mixed, starts)
    return found


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Scatter numbers over 64 bits: Steele, Lea and Flood (2014), "Fast splittable PRNGs"."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ numbers >> np.uint64(shift)) * np.uint64(factor)
    mixed: np.ndarray = numbers ^ numbers >> np.uint64(31)
    return mixed
