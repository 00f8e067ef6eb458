"""Beam search that stays on the model's device: selection is a graph too.

Only what was chosen leaves the device, once a search. The graph works on rows of fixed number, as
the host must not wait for a count: a grid of beams gets somewhat more rows than its largest beam,
and where its union was larger, which the counts tell at the end, the search runs again with as
many as there can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import onnxruntime as ort

from genret_dask.identifiers import Trie
from genret_dask.inference import beam
from genret_dask.inference.beam import Beams
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.finite import not_finite
from genret_dask.inference.graph import on_host
from genret_dask.inference.rows import Rows
from genret_dask.inference.session import BeamSession, Session
from genret_dask.monitoring.meter import count_decoded, phase

_SLACK = 1.25
_PLACED: WeakKeyDictionary[BeamSession, tuple[Trie, list]] = WeakKeyDictionary()
_CHOSEN = ("new_score", "new_node", "new_member", "parent", "code", "logit", "partition", "allowed")
_COUNTS = ("kept", "not_finite")


def searcher(session: Session) -> Callable[..., Beams]:
    """The search that suits a session: this module's on CUDA, else that of `beam`."""
    if isinstance(session, BeamSession) and session.device == "cuda":
        return search
    return beam.search


def search(
    session: BeamSession,
    trie: Trie,
    vocabulary: Vocabulary,
    tokens: np.ndarray,
    lengths: np.ndarray,
    beams: Sequence[int],
) -> Beams:
    """Takes, returns and raises what `genret_dask.inference.beam.search` does.

    Identifiers of different length are searched there: the graph knows of no end token. So are
    those of a model whose graph does not give `log_allowed`, as older exports do not.
    """
    if trie.endings or not session.selects_allowed:
        return beam.search(session, trie, vocabulary, tokens, lengths, beams)
    sizes = np.asarray(beams, dtype=np.int64)
    enough = int(min(sizes.sum(), len(trie.documents)))
    slots = min(enough, math.ceil(_SLACK * sizes.max()) if len(sizes) > 1 else enough)
    steps = _walk(session, trie, vocabulary, tokens, lengths, sizes, slots)
    _check(steps)
    if any(step["kept"].max() > slots for step in steps):
        steps = _walk(session, trie, vocabulary, tokens, lengths, sizes, enough)
        _check(steps)
    rows = sum(int((step["new_node"] >= 0).sum()) for step in steps[:-1])
    count_decoded("search", len(tokens) + rows)
    return _collect(steps, vocabulary, trie, sizes, len(tokens))


def _walk(
    session: BeamSession,
    trie: Trie,
    vocabulary: Vocabulary,
    tokens: np.ndarray,
    lengths: np.ndarray,
    sizes: np.ndarray,
    slots: int,
) -> list[dict[str, np.ndarray]]:
    """What was chosen at each step; arrays [queries, rows], and [beams, queries, rows]."""
    queries = len(tokens)
    last = session.place(np.full((queries, 1), vocabulary.start_token, dtype=np.int64))
    parents = session.place(np.arange(queries, dtype=np.int64))
    live = {
        "score": session.place(np.zeros((queries, 1))),
        "node": session.place(np.zeros((queries, 1), dtype=np.int64)),
        "member": session.place(np.ones((len(sizes), queries, 1), dtype=bool)),
        "sizes": session.place(sizes),
    }
    rows = on_host([slots])
    state = session.prefill(tokens, lengths)
    steps = []
    for level, constraint in enumerate(_placed(session, trie)):
        block = vocabulary.block(level)
        logits, partition, state = session.step_resident(state, last, parents, block)
        first = {"logits": logits, "log_partition": partition, "slots": rows}
        first["first_row"] = on_host(block[0])
        found = session.select_resident({**live, **constraint, **first})
        last, parents = found["tokens"], found["parents"]
        live |= {name: found[f"new_{name}"] for name in ("score", "node", "member")}
        steps.append(found)
    return [{name: found[name].numpy() for name in (*_CHOSEN, *_COUNTS)} for found in steps]


def _check(steps: list[dict[str, np.ndarray]]) -> None:
    """Raise where the graph counted children whose scores are not finite."""
    for step, found in enumerate(steps):
        for row in np.flatnonzero(found["not_finite"]):
            count = int(found["not_finite"][row])
            raise not_finite(int(row), step, f"{count} legal tokens have no finite score")


def _placed(session: BeamSession, trie: Trie) -> list[dict[str, ort.OrtValue]]:
    """A trie's levels on the session's device; that of the last search stays there."""
    kept, levels = _PLACED.get(session, (None, []))
    if kept is not trie:
        levels = [
            {
                "children": session.place(children.astype(np.int32, copy=False)),
                "codes": session.place(codes.astype(np.int32)),
                "width": on_host(np.diff(children).max(keepdims=True)),
            }
            for children, codes in zip(trie.children, trie.codes, strict=True)
        ]
        _PLACED[session] = trie, levels
    return levels


@phase("select")
def _collect(
    steps: list[dict[str, np.ndarray]],
    vocabulary: Vocabulary,
    trie: Trie,
    sizes: np.ndarray,
    queries: int,
) -> Beams:
    """Follow the parents back from the last step's rows."""
    decoded = [np.ones((len(sizes), queries), dtype=np.int32)]
    decoded += [step["new_member"].sum(axis=-1, dtype=np.int32) for step in steps[:-1]]
    final = steps[-1]
    query, row = np.nonzero(final["new_node"] >= 0)
    order = np.lexsort((final["new_node"][query, row], query))
    query, row = query[order], row[order]
    shape = (len(row), len(steps))
    rows = Rows(
        query=query,
        slot=row,
        parent=final["parent"][query, row],
        states=final["new_node"][query, row],
        score=final["new_score"][query, row],
        ended=np.ones(len(row), dtype=bool),
        member=final["new_member"][:, query, row],
        token=np.empty(shape, dtype=np.int64),
        logit=np.empty(shape, dtype=np.float32),
        log_partition=np.empty(shape, dtype=np.float32),
        log_allowed=np.empty(shape, dtype=np.float32),
    )
    at = row
    for level, step in reversed(list(enumerate(steps))):
        rows.token[:, level] = step["code"][query, at] + vocabulary.block_starts[level]
        rows.logit[:, level] = step["logit"][query, at]
        rows.log_partition[:, level] = step["partition"][query, at]
        rows.log_allowed[:, level] = step["allowed"][query, at]
        at = step["parent"][query, at]
    rows_decoded = np.stack(decoded, axis=-1).transpose(1, 0, 2)
    return beam.collect(rows, trie, queries, int(sizes.max()), rows_decoded)
