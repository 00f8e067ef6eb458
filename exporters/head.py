"""The output head: the logits of the rows asked for, and what normalises them."""

from __future__ import annotations

import numpy as np

from genret_dask.exporters.graph import Graph

_TILE = 4096  # vocabulary rows whose logits are held at a time
_LOWERED = -30.0  # exp() of it is far below the resolution of float32


def output_logits(
    g: Graph, hidden: str, name: str, head: np.ndarray, batch: str, beams: str
) -> None:
    """Output the asked block of logits and the log-partition of the whole vocabulary.

    Only the asked rows' logits exist as such, in float32; all others are summed up by tiles of
    the vocabulary, so that no step holds [rows, vocabulary]. The asked rows enter the partition
    as they are given out, not as rounded in their tile: no token's loss is below zero.

    Parameters
    ----------
    hidden : str
        Normed hidden states, batch * beams rows.
    name, head : str, float32[vocabulary, d]
        The head's weight.
    batch, beams : str
        Sizes, int64[1].
    """
    start, stop = (
        g.op("Unsqueeze", g.input(f"rows_{end}", np.int64, []), g.const([0]))
        for end in ("start", "stop")
    )
    axis, hidden = g.const([0]), g.reshape(hidden, [-1, head.shape[1]])
    asked = g.op("Slice", g.weight(name, head, g.dtype), start, stop, axis)
    block = g.op("Gemm", hidden, g.wide(asked), transB=1)
    row = g.span(g.const([len(head)]))
    inside = g.op("And", g.op("GreaterOrEqual", row, start), g.op("Less", row, stop))
    zero, lowered = g.const(0.0, np.float32), g.const(_LOWERED, np.float32)
    bias = g.narrow(g.op("Where", inside, lowered, zero))
    parts = [_log_partition(g, block)]
    for first in range(0, len(head), _TILE):
        rows = first, min(first + _TILE, len(head))
        tile = g.weight(name, head, g.dtype, rows=rows)
        part = g.op("Slice", bias, g.const([rows[0]]), g.const([rows[1]]), axis)
        logits = g.op("Gemm", g.narrow(hidden), tile, part, transB=1)
        parts.append(_log_partition(g, g.wide(logits)))
    partition = g.op("ReduceLogSumExp", g.op("Concat", *parts, axis=-1), g.const([-1]))
    block = g.reshape(block, [batch, beams, g.op("Sub", stop, start)])
    g.output("logits", block, np.float32, ["batch", "beams", "block"])
    partition = g.reshape(partition, [batch, beams])
    g.output("log_partition", partition, np.float32, ["batch", "beams"])


def _log_partition(g: Graph, logits: str) -> str:
    """Log-sum-exp along the last axis, which stays."""
    # The kernel of LogSoftmax is vectorised; that of ReduceLogSumExp is nine times slower.
    normal = g.op("LogSoftmax", logits, axis=-1)
    first = [g.const([0]), g.const([1]), g.const([-1])]
    return g.op("Sub", g.op("Slice", logits, *first), g.op("Slice", normal, *first))
