"""Teacher-forced scoring of many documents against one shared prefill.

The documents' identifiers form a trie of their own: a prefix that several of them share is decoded
once, with the same `step` graph that searches, so a document scores here what it scores there.
"""

from __future__ import annotations

import numpy as np

from genret_dask.identifiers import Codes
from genret_dask.inference.beam import Vocabulary
from genret_dask.inference.session import Session


def score(
    session: Session,
    codes: Codes,
    vocabulary: Vocabulary,
    tokens: np.ndarray,
    lengths: np.ndarray,
    documents: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and log-partitions of the documents' identifiers.

    Parameters
    ----------
    tokens : int64[queries, width]
        Right-padded query tokens.
    lengths : int64[queries]
    documents : int32[queries, candidates]
        Collection rows; -1 is no document.

    Returns
    -------
    logit, log_partition : float32[queries, candidates, steps]
        NaN where there is no document.
    """
    query, candidate = np.nonzero(documents >= 0)
    path = np.asarray(codes.codes[documents[query, candidate]], dtype=np.int64)
    order = np.lexsort((*path.T[::-1], query))
    query, candidate, path = query[order], candidate[order], path[order]

    shape = (*documents.shape, codes.length)
    logit = np.full(shape, np.nan, dtype=np.float32)
    log_partition = np.full(shape, np.nan, dtype=np.float32)
    if not len(query):
        return logit, log_partition
    state = session.prefill(tokens, lengths)
    opens = np.append(True, query[1:] != query[:-1])  # rows that open a prefix of this length
    parent_slot = np.zeros(len(query), dtype=np.int64)
    last = np.full(len(query), vocabulary.start_token, dtype=np.int64)
    for level in range(codes.length):
        slot = _slots(query, opens)
        width = int(slot.max()) + 1
        step_tokens = np.zeros((len(tokens), width), dtype=np.int64)
        step_parents = np.zeros((len(tokens), width), dtype=np.int64)
        step_tokens[query, slot] = last
        step_parents[query, slot] = parent_slot
        logits, partition, state = session.step(
            state, step_tokens, step_parents, vocabulary.block(level)
        )
        code = path[:, level]
        logit[query, candidate, level] = logits[query, slot, code]
        log_partition[query, candidate, level] = partition[query, slot]
        last, parent_slot = code + vocabulary.block_starts[level], slot
        opens = opens | np.append(True, code[1:] != code[:-1])
    return logit, log_partition


def _slots(query: np.ndarray, opens: np.ndarray) -> np.ndarray:
    """Number of each row's prefix within its query, for rows sorted by query and prefix."""
    prefix = np.cumsum(opens) - 1
    return prefix - prefix[np.searchsorted(query, query)]
