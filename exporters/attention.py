"""The pieces of a `step` graph that do not depend on the model family.

A step decodes K rows for each of B queries. Its own keys and values, one pair a layer, are
[rows, time, heads * width]: a parent's history is one contiguous block, the gather copies blocks,
and so does appending. With so few tokens an elementwise product and a sum read this layout as it
lies, and take less time than thousands of tiny matrix products after a transpose.
"""

from __future__ import annotations

import numpy as np

from genret_dask.exporters.graph import MASKED, Graph


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
        self.tokens = g.reshape(tokens, [-1, 1])
        self.mask = length_mask(g, self.lengths, g.size("prompt_key_0", 3))

    def append(self, layer: int, key: str, value: str) -> tuple[str, str]:
        """The parents' keys and values with this step's, [rows, 1, kv], appended."""
        g = self.g
        new = []
        for past, now, kind in zip(self._past[layer], (key, value), ("key", "value"), strict=True):
            history = g.op("Gather", past, self._parents, axis=0)
            grown = g.op("Concat", history, g.narrow(now), axis=1)
            g.output(f"own_{kind}_{layer}", grown, g.dtype, ["rows", "new_time", self.kv])
            new.append(g.wide(grown))
        return new[0], new[1]

    def own_scores(self, query: str, keys: str) -> str:
        """Scores of each row's own tokens, [batch, heads, beams, time + 1]."""
        g = self.g
        product = g.op("Mul", self._by_head(keys, -1), self._by_head(query, 1, shared=False))
        scores = g.op("ReduceSum", product, g.const([-1]), keepdims=0)
        if self.kv_heads < self.heads:
            scores = g.reshape(scores, [0, 0, 0, self.heads])
        # Moved within a query; moved within each row, an axis takes 15 times as long.
        return g.op("Transpose", scores, perm=[0, 3, 1, 2])

    def own_mix(self, weights: str, values: str) -> str:
        """Values averaged with [batch, heads, beams, time + 1]; [batch, beams, heads, width]."""
        g, groups = self.g, self.heads // self.kv_heads
        weight = g.op("Transpose", weights, perm=[0, 2, 3, 1])
        if groups == 1:
            weight = g.op("Unsqueeze", weight, g.const([-1]))
        else:
            weight = g.reshape(weight, [0, 0, 0, self.kv_heads, groups, 1])
        product = g.op("Mul", self._by_head(values, -1), weight)
        mixed = g.op("ReduceSum", product, g.const([2]), keepdims=0)
        return mixed if groups == 1 else g.reshape(mixed, [0, 0, self.heads, self.width])

    def _by_head(self, value: str, time: int, *, shared: bool = True) -> str:
        """[rows, ...] as [batch, beams, time, heads, width].

        Where query heads share a key, heads are [key heads, query heads of a key], and the second
        is 1 in what is `shared`.
        """
        heads, groups = [self.heads], self.heads // self.kv_heads
        if groups > 1:
            heads = [self.kv_heads, 1 if shared else groups]
        return self.g.reshape(value, [self.batch, self.beams, time, *heads, self.width])

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
        """Prompt values averaged with [batch, heads, beams, prompt]; as `own_mix` gives them."""
        g, groups = self.g, self.heads // self.kv_heads
        if groups > 1:
            size = g.size(weights, 3)
            weights = g.reshape(weights, [0, self.kv_heads, groups, self.beams, size])
            weights = g.reshape(weights, [0, self.kv_heads, -1, size])
        mixed = g.wide(g.op("MatMul", g.narrow(weights), self.prompt[layer][1]))
        if groups > 1:
            mixed = g.reshape(mixed, [self.batch, self.heads, self.beams, self.width])
        return g.op("Transpose", mixed, perm=[0, 2, 1, 3])

    def join(self, mixed: str) -> str:
        """[batch, beams, heads, width] as [rows, 1, heads * width]."""
        return self.g.reshape(mixed, [-1, 1, self.heads * self.width])


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
