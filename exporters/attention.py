"""The pieces of a `step` graph that do not depend on the model family.

A step decodes K rows for each of B queries. Its own keys and values, one pair a layer, are
[rows, time, heads * width]: a parent's history is one contiguous block, the gather copies blocks,
and so does appending. With so few tokens an elementwise product and a sum read this layout as it
lies, and take less time than thousands of tiny matrix products after a transpose.
"""

from __future__ import annotations

import numpy as np

from genret_dask.exporters.graph import MASKED, Graph

_TILE = 4096  # vocabulary rows whose logits are held at a time
_LOWERED = -30.0  # exp() of it is far below the resolution of float32


class StepFrame:
    """Inputs, sizes and outputs that every family's `step` graph has.

    Parameters
    ----------
    layers, heads, kv_heads, width : int
        Decoder layers, query heads, key/value heads, and the width of a head.
    """

    def __init__(self, g: Graph, layers: int, heads: int, kv_heads: int, width: int) -> None:
        self.g, self.heads, self.kv_heads, self.width = g, heads, kv_heads, width
        self.kv = kv_heads * width
        tokens = g.input("tokens", np.int64, ["batch", "beams"])
        self._parents = g.input("parents", np.int64, ["rows"])
        self.lengths = g.input("lengths", np.int64, ["batch"])
        self._start = g.input("rows_start", np.int64, [])
        self._stop = g.input("rows_stop", np.int64, [])
        prompt = [
            (
                g.input(f"prompt_key_{i}", g.dtype, ["batch", kv_heads, width, "prompt"]),
                g.input(f"prompt_value_{i}", g.dtype, ["batch", kv_heads, "prompt", width]),
            )
            for i in range(layers)
        ]
        self.prompt = prompt
        past = ["past_rows", "time", self.kv]
        self._past = [
            (
                g.input(f"past_key_{i}", g.dtype, past),
                g.input(f"past_value_{i}", g.dtype, past),
            )
            for i in range(layers)
        ]
        self.batch, self.beams = g.size("tokens", 0), g.size("tokens", 1)
        self.time = g.size("past_key_0", 1)
        self.tokens = g.reshape(tokens, [-1])
        self.mask = length_mask(g, self.lengths, g.size("prompt_key_0", 3))

    def split(self, joined: str, sizes: list[int]) -> list[str]:
        """Cut the last axis of a joined projection."""
        return self.g.ops("Split", joined, self.g.const(sizes), count=len(sizes), axis=-1)

    def append(self, layer: int, key: str, value: str) -> tuple[str, str]:
        """The parents' keys and values with this step's appended, [rows, time + 1, kv]."""
        g = self.g
        new = []
        for past, now, kind in zip(self._past[layer], (key, value), ("key", "value"), strict=True):
            history = g.op("Gather", past, self._parents, axis=0)
            last = g.op("Unsqueeze", g.narrow(now), g.const([1]))
            grown = g.op("Concat", history, last, axis=1)
            g.output(f"own_{kind}_{layer}", grown, g.dtype, ["rows", "new_time", self.kv])
            new.append(g.wide(grown))
        return new[0], new[1]

    def own_scores(self, query: str, keys: str) -> str:
        """Scores of each row's own tokens, [rows, heads, time + 1]."""
        g, groups = self.g, self.heads // self.kv_heads
        if groups == 1:
            key = g.reshape(keys, [0, -1, self.heads, self.width])
            one = g.reshape(query, [-1, 1, self.heads, self.width])
        else:
            key = g.reshape(keys, [0, -1, self.kv_heads, 1, self.width])
            one = g.reshape(query, [-1, 1, self.kv_heads, groups, self.width])
        scores = g.op("ReduceSum", g.op("Mul", key, one), g.const([-1]), keepdims=0)
        if groups > 1:
            scores = g.reshape(scores, [0, 0, self.heads])
        return g.op("Transpose", scores, perm=[0, 2, 1])

    def own_mix(self, weights: str, values: str) -> str:
        """Values averaged with weights [rows, time + 1, heads]; [rows, heads * width]."""
        g, groups = self.g, self.heads // self.kv_heads
        if groups == 1:
            weight = g.op("Unsqueeze", weights, g.const([-1]))
            value = g.reshape(values, [0, -1, self.heads, self.width])
        else:
            weight = g.reshape(weights, [0, 0, self.kv_heads, groups, 1])
            value = g.reshape(values, [0, -1, self.kv_heads, 1, self.width])
        mixed = g.op("ReduceSum", g.op("Mul", value, weight), g.const([1]), keepdims=0)
        return g.reshape(mixed, [-1, self.heads * self.width])

    def prompt_scores(self, query: str, layer: int) -> str:
        """Masked scores of the prompt's tokens, [batch, heads, beams, prompt].

        The beams of a query, and the query heads that share a key, are rows of one product.
        """
        g, groups = self.g, self.heads // self.kv_heads
        if groups == 1:
            shape: list[int | str] = [self.batch, self.beams, self.heads, self.width]
            folded = g.narrow(g.heads(query, shape, (0, 2, 1, 3)))
            scores = g.op("MatMul", folded, self.prompt[layer][0])
        else:
            shape = [self.batch, self.beams, self.kv_heads, groups, self.width]
            folded = g.heads(query, shape, (0, 2, 3, 1, 4))
            folded = g.narrow(g.reshape(folded, [0, self.kv_heads, -1, self.width]))
            scores = g.op("MatMul", folded, self.prompt[layer][0])
            scores = g.reshape(scores, [self.batch, self.heads, self.beams, -1])
        return g.op("Add", g.wide(scores), self.mask)

    def prompt_mix(self, weights: str, layer: int) -> str:
        """Prompt values averaged with weights [batch, heads, beams, prompt]; [rows, ...]."""
        g, groups = self.g, self.heads // self.kv_heads
        if groups > 1:
            size = g.size(weights, 3)
            weights = g.reshape(weights, [0, self.kv_heads, groups, self.beams, size])
            weights = g.reshape(weights, [0, self.kv_heads, -1, size])
        mixed = g.wide(g.op("MatMul", g.narrow(weights), self.prompt[layer][1]))
        if groups > 1:
            mixed = g.reshape(mixed, [self.batch, self.heads, self.beams, self.width])
        return g.reshape(g.op("Transpose", mixed, perm=[0, 2, 1, 3]), [-1, self.heads * self.width])

    def finish(self, hidden: str, name: str, head: np.ndarray) -> None:
        """Output the asked block of logits and the log-partition of the whole vocabulary.

        Only the asked rows' logits exist as such, in float32; all others are summed up by tiles of
        the vocabulary, so that no step holds [rows, vocabulary]. The asked rows enter the partition
        as they are given out, not as rounded in their tile: no token's loss is below zero.
        """
        g = self.g
        axis = g.const([0])
        start, stop = (g.op("Unsqueeze", row, axis) for row in (self._start, self._stop))
        asked = g.op("Slice", g.weight(name, head, g.dtype), start, stop, axis)
        block = g.op("Gemm", hidden, g.wide(asked), transB=1)
        row = g.span(g.const([len(head)]))
        inside = g.op("And", g.op("GreaterOrEqual", row, start), g.op("Less", row, stop))
        zero, lowered = g.const(0.0, np.float32), g.const(_LOWERED, np.float32)
        bias = g.narrow(g.op("Where", inside, lowered, zero))
        parts = [self._log_partition(block)]
        for first in range(0, len(head), _TILE):
            rows = first, min(first + _TILE, len(head))
            tile = g.weight(name, head, g.dtype, rows=rows)
            part = g.op("Slice", bias, g.const([rows[0]]), g.const([rows[1]]), axis)
            logits = g.op("Gemm", g.narrow(hidden), tile, part, transB=1)
            parts.append(self._log_partition(g.wide(logits)))
        partition = g.op("ReduceLogSumExp", g.op("Concat", *parts, axis=-1), g.const([-1]))
        g.output(
            "logits",
            g.reshape(block, [self.batch, self.beams, g.op("Sub", stop, start)]),
            np.float32,
            ["batch", "beams", "block"],
        )
        g.output(
            "log_partition",
            g.reshape(partition, [self.batch, self.beams]),
            np.float32,
            ["batch", "beams"],
        )

    def _log_partition(self, logits: str) -> str:
        """Log-sum-exp along the last axis, which stays."""
        g = self.g
        # The kernel of LogSoftmax is vectorised; that of ReduceLogSumExp is nine times slower.
        normal = g.op("LogSoftmax", logits, axis=-1)
        first = [g.const([0]), g.const([1]), g.const([-1])]
        return g.op("Sub", g.op("Slice", logits, *first), g.op("Slice", normal, *first))


def length_mask(g: Graph, lengths: str, size: str) -> str:
    """What to add to scores so that positions from `lengths` on are not seen, [batch,1,1,size]."""
    seen = g.op("Less", g.span(size), g.op("Unsqueeze", lengths, g.const([1])))
    added = g.op("Where", seen, g.const(0.0, np.float32), g.const(MASKED, np.float32))
    return g.op("Unsqueeze", added, g.const([1, 2]))


def output_prompt(g: Graph, layer: int, key: str, value: str, kv_heads: int, width: int) -> None:
    """Publish a layer's prompt state: keys [.., width, prompt], values [.., prompt, width]."""
    key, value = g.narrow(key), g.narrow(value)
    g.output(f"prompt_key_{layer}", key, g.dtype, ["batch", kv_heads, width, "prompt"])
    g.output(f"prompt_value_{layer}", value, g.dtype, ["batch", kv_heads, "prompt", width])
