"""Teacher-forced scoring of many identifiers against one shared prefill.

The identifiers of a query form a trie of their own: a prefix that several of them share is decoded
once, with the same `step` graph that searches, so an identifier scores here what it scores there.
"""

from __future__ import annotations

import numpy as np

from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.finite import check_finite
from genret_dask.inference.session import Session
from genret_dask.monitoring.meter import count_decoded


def score(
    session: Session,
    vocabulary: Vocabulary,
    tokens: np.ndarray,
    lengths: np.ndarray,
    paths: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and log-partitions of identifiers.

    Parameters
    ----------
    tokens : int64[queries, width]
        Right-padded query tokens.
    lengths : int64[queries]
    paths : int64[queries, identifiers, steps]
        Tokens within each level's block of the vocabulary; -1 behind an identifier's end.

    Returns
    -------
    logit, log_partition : float32[queries, identifiers, steps]
        NaN where there is no token, and nowhere else.

    Raises
    ------
    NumericError
        The model gave NaN or infinity to an identifier.
    """
    logit = np.full(paths.shape, np.nan, dtype=np.float32)
    log_partition = np.full(paths.shape, np.nan, dtype=np.float32)
    query, identifier = np.nonzero(paths[..., 0] >= 0)
    if not len(query):
        return logit, log_partition
    path = paths[query, identifier]
    order = np.lexsort((*path.T[::-1], query))
    query, identifier, path = query[order], identifier[order], path[order]

    state = session.prefill(tokens, lengths)
    prefix = np.cumsum(np.append(True, query[1:] != query[:-1])) - 1  # of each row, numbered
    parent_slot = np.zeros(len(query), dtype=np.int64)
    last = np.full(len(query), vocabulary.start_token, dtype=np.int64)
    for level in range(paths.shape[2]):
        slot = prefix - prefix[np.searchsorted(query, query)]
        width = int(slot.max()) + 1
        step_tokens = np.zeros((len(tokens), width), dtype=np.int64)
        step_parents = np.zeros((len(tokens), width), dtype=np.int64)
        step_tokens[query, slot] = last
        step_parents[query, slot] = parent_slot
        block = vocabulary.block(level)
        logits, partition, state = session.step(state, step_tokens, step_parents, block)
        count_decoded("score", int(prefix[-1]) + 1)
        code = path[:, level]
        found, of_rows = logits[query, slot, code], partition[query, slot]
        check_finite(of_rows, query, level, "the log-partition")
        check_finite(found, query, level, "an identifier's logit")
        logit[query, identifier, level] = found
        log_partition[query, identifier, level] = of_rows

        goes_on = np.zeros(len(query), dtype=bool)
        if level + 1 < paths.shape[2]:
            goes_on = path[:, level + 1] >= 0
        if not goes_on.any():
            break
        query, identifier, path = query[goes_on], identifier[goes_on], path[goes_on]
        last, parent_slot = code[goes_on] + block[0], slot[goes_on]
        prefix, code = prefix[goes_on], code[goes_on]
        opens = (prefix[1:] != prefix[:-1]) | (code[1:] != code[:-1])
        prefix = np.cumsum(np.append(True, opens)) - 1
    return logit, log_partition
