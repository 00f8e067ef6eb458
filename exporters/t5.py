"""T5: an encoder whose cross-attention keys and values all beams share, and a decoder step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genret_dask.errors import ModelError
from genret_dask.exporters.activations import ACTIVATIONS, activation_problems
from genret_dask.exporters.attention import StepFrame, length_mask, output_prompt
from genret_dask.exporters.base import Checkpoint, Exporter
from genret_dask.exporters.graph import Graph
from genret_dask.exporters.head import output_logits
from genret_dask.exporters.select import write_graphs
from genret_dask.models.architectures import architecture_of


class T5Exporter(Exporter):
    """Exports T5 as beam-native graphs."""

    def check(self, config: Any) -> list[str]:
        """See `Exporter`."""
        problems = activation_problems("feed_forward_proj", config.dense_act_fn)
        if not config.is_encoder_decoder:
            problems.append("is_encoder_decoder is False; expected True")
        buckets = config.relative_attention_num_buckets
        furthest = config.relative_attention_max_distance
        whole = isinstance(buckets, int) and isinstance(furthest, int)
        if not (whole and buckets >= 4 and furthest > buckets // 2):
            problems.append(
                f"relative_attention_num_buckets is {buckets} and relative_attention_max_distance "
                f"{furthest}; expected 4 or more, and a distance above half of them"
            )
        try:
            shape = architecture_of(config)
        except ModelError as error:
            return [*problems, error.found]
        if not shape.encoder_layers:
            problems.append("num_layers is 0; expected 1 or more")
        return problems

    def write(self, checkpoint: Checkpoint, folder: Path) -> None:
        """See `Exporter`."""
        drawn = _Graphs(checkpoint)
        write_graphs(folder, checkpoint.precision, drawn.prefill, drawn.step)


def relative_bias(
    weight: np.ndarray, *, bidirectional: bool, max_distance: int
) -> tuple[np.ndarray, int]:
    """Attention bias by clipped distance.

    Parameters
    ----------
    weight : float32[buckets, heads]

    Returns
    -------
    table : float32[distances, heads]
        Row i is the bias of a key at (key position - query position) = i - offset; distances
        beyond the table have the bias of its nearest end.
    offset : int

    Notes
    -----
    The buckets of Raffel et al. (2020), section 2.1: half of them exact, half logarithmic up to
    `max_distance`.
    """
    buckets = weight.shape[0]
    last = max_distance if bidirectional else 0
    distance = torch.arange(-max_distance, last + 1)
    if bidirectional:
        buckets //= 2
        first = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        first = torch.zeros_like(distance)
        distance = -distance
    exact = buckets // 2
    # In float32, as the reference: several distances lie exactly on a bucket's edge.
    ratio = torch.log(distance.float() / exact) / math.log(max_distance / exact)
    far = exact + torch.where(distance > 0, ratio * (buckets - exact), 0.0).long()
    bucket = torch.where(distance < exact, distance, far.clamp(max=buckets - 1))
    return weight[(first + bucket).numpy()], max_distance


class _Graphs:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config, self.state = checkpoint.model.config, checkpoint.arrays()
        self.shape, self.inner = checkpoint.architecture, checkpoint.architecture.inner

    def _norm(self, g: Graph, x: str, name: str, scale: float = 1.0) -> str:
        weight = self.state[f"{name}.weight"] * np.float32(scale)
        return g.rms_norm(x, f"{name}.weight", weight, self.config.layer_norm_epsilon)

    def _linear(self, g: Graph, x: str, *names: str) -> str:
        """One product for all the named projections, joined along the last axis."""
        joined = np.concatenate([self.state[f"{name}.weight"] for name in names])
        return g.linear(x, "+".join(names), joined)

    def _projections(self, g: Graph, x: str, attention: str) -> list[str]:
        """Queries, keys and values, by one product."""
        joined = self._linear(g, x, *(f"{attention}.{part}" for part in "qkv"))
        return g.ops("Split", joined, g.const([self.inner] * 3), count=3, axis=-1)

    def _feed_forward(self, g: Graph, x: str, name: str) -> str:
        n = self._norm(g, x, f"{name}.layer_norm")
        dense, activation = f"{name}.DenseReluDense", ACTIVATIONS[self.config.dense_act_fn]
        if self.shape.gated:
            both = self._linear(g, n, f"{dense}.wi_0", f"{dense}.wi_1")
            sizes = g.const([self.shape.d_ff] * 2)
            gate, up = g.ops("Split", both, sizes, count=2, axis=-1)
            inner = g.op("Mul", activation(g, gate), up)
        else:
            inner = activation(g, self._linear(g, n, f"{dense}.wi"))
        # Its results pass float16's largest number in trained models.
        wo = g.linear(inner, f"{dense}.wo", self.state[f"{dense}.wo.weight"], exact=True)
        return g.op("Add", x, wo)

    def _bias(self, g: Graph, stack: str, distance: str, bidirectional: bool) -> str:
        """Bias of each (key - query) distance, heads last."""
        name = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        table, offset = relative_bias(
            self.state[f"{name}.weight"],
            bidirectional=bidirectional,
            max_distance=self.config.relative_attention_max_distance,
        )
        low, high = g.const(0), g.const(len(table) - 1)
        index = g.op("Clip", g.op("Add", distance, g.const(offset)), low, high)
        return g.op("Gather", g.weight(f"{name}.table", table), index, axis=0)

    def prefill(self, g: Graph) -> None:
        heads, d = self.shape.heads, self.shape.d_head
        g.input("tokens", np.int64, ["batch", "prompt"])
        g.input("lengths", np.int64, ["batch"])
        size = g.size("tokens", 1)
        place = g.span(size)
        columns, rows = (g.op("Unsqueeze", place, g.const([axis])) for axis in (0, 1))
        distance = g.op("Sub", columns, rows)
        bias = g.op("Transpose", self._bias(g, "encoder", distance, True), perm=[2, 0, 1])
        mask = g.op("Add", bias, length_mask(g, "lengths", size))
        x = g.embed("tokens", "shared.weight", self.state["shared.weight"])
        for i in range(self.shape.encoder_layers):
            name = f"encoder.block.{i}.layer"
            n = self._norm(g, x, f"{name}.0.layer_norm")
            attention = f"{name}.0.SelfAttention"
            q, k, v = self._projections(g, n, attention)
            q = g.heads(q, [0, 0, heads, d], (0, 2, 1, 3))
            k = g.heads(k, [0, 0, heads, d], (0, 2, 3, 1))
            v = g.heads(v, [0, 0, heads, d], (0, 2, 1, 3))
            scores = g.wide(g.op("MatMul", g.narrow(q), g.narrow(k)))
            seen = g.op("Softmax", g.op("Add", scores, mask), axis=-1)
            mixed = g.wide(g.op("MatMul", g.narrow(seen), g.narrow(v)))
            mixed = g.op("Transpose", mixed, perm=[0, 2, 1, 3])
            mixed = g.reshape(mixed, [0, 0, self.inner])
            x = g.op("Add", x, self._linear(g, mixed, f"{attention}.o"))
            x = self._feed_forward(g, x, f"{name}.1")
        x = self._norm(g, x, "encoder.final_layer_norm")
        for i in range(self.shape.decoder_layers):
            attention = f"decoder.block.{i}.layer.1.EncDecAttention"
            key = g.heads(self._linear(g, x, f"{attention}.k"), [0, 0, heads, d], (0, 2, 3, 1))
            value = g.heads(self._linear(g, x, f"{attention}.v"), [0, 0, heads, d], (0, 2, 1, 3))
            output_prompt(g, i, key, value, heads, d)

    def step(self, g: Graph) -> None:
        config, shape = self.config, self.shape
        frame = StepFrame(g, shape.decoder_layers, shape.heads, shape.heads, shape.d_head)
        x = g.embed(frame.tokens, "shared.weight", self.state["shared.weight"])
        now = g.op("Add", frame.time, g.const([1]))
        distance = g.op("Sub", g.span(now), frame.time)
        bias = g.op("Transpose", self._bias(g, "decoder", distance, False), perm=[1, 0])
        bias = g.op("Unsqueeze", bias, g.const([1]))
        for i in range(shape.decoder_layers):
            name = f"decoder.block.{i}.layer"
            n = self._norm(g, x, f"{name}.0.layer_norm")
            attention = f"{name}.0.SelfAttention"
            q, k, v = self._projections(g, n, attention)
            keys, values = frame.append(i, k, v)
            scores = g.op("Add", frame.own_scores(q, keys), bias)
            mixed = frame.own_mix(g.op("Softmax", scores, axis=-1), values)
            own = self._linear(g, frame.join(mixed), f"{attention}.o")
            x = g.op("Add", x, own)

            n = self._norm(g, x, f"{name}.1.layer_norm")
            attention = f"{name}.1.EncDecAttention"
            scores = frame.prompt_scores(self._linear(g, n, f"{attention}.q"), i)
            mixed = frame.prompt_mix(g.op("Softmax", scores, axis=-1), i)
            x = g.op("Add", x, self._linear(g, frame.join(mixed), f"{attention}.o"))
            x = self._feed_forward(g, x, f"{name}.2")
        tied = config.tie_word_embeddings
        # transformers 5 names the scaling of the head; before, a tied head was always scaled.
        scaled = getattr(config, "scale_decoder_outputs", tied)
        scale = config.d_model**-0.5 if scaled else 1.0
        x = self._norm(g, x, "decoder.final_layer_norm", scale)
        head = "shared.weight" if tied else "lm_head.weight"
        output_logits(g, x, head, self.state[head], frame.batch, frame.beams)
