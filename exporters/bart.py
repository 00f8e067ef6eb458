"""BART and mBART: T5's graphs, with learned positions, biases, and norms of mean and variance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from genret_dask.errors import ModelError
from genret_dask.exporters.activations import ACTIVATIONS, activation_problems
from genret_dask.exporters.attention import StepFrame, length_mask, output_prompt
from genret_dask.exporters.base import Checkpoint, Exporter
from genret_dask.exporters.graph import Graph
from genret_dask.exporters.head import output_logits
from genret_dask.exporters.select import write_graphs
from genret_dask.models.architectures import architecture_of

_OFFSET = 2  # rows of a table of positions that stand before the first position's
_POSITIONS = 32  # a check against PyTorch needs nearly as many
_EPSILON = 1e-5


class BartExporter(Exporter):
    """Exports BART and mBART as beam-native graphs."""

    def check(self, config: Any) -> list[str]:
        """See `Exporter`."""
        problems = activation_problems("activation_function", config.activation_function)
        if not config.is_encoder_decoder:
            problems.append("is_encoder_decoder is False; expected True")
        if not config.tie_word_embeddings:
            problems.append("tie_word_embeddings is False; expected True")
        for field in ("attention_heads", "ffn_dim"):
            ours, theirs = (getattr(config, f"{stack}_{field}") for stack in ("encoder", "decoder"))
            if ours != theirs:
                problems.append(
                    f"encoder_{field} is {ours} and decoder_{field} {theirs}; expected the same"
                )
        if (positions := config.max_position_embeddings) < _POSITIONS:
            problems.append(
                f"max_position_embeddings is {positions}; expected {_POSITIONS} or more"
            )
        try:
            shape = architecture_of(config)
        except ModelError as error:
            return [*problems, error.found]
        if shape.d_model % shape.heads:
            problems.append(
                f"d_model is {shape.d_model}; expected a multiple of the {shape.heads} heads"
            )
        if not shape.encoder_layers:
            problems.append("encoder_layers is 0; expected 1 or more")
        return problems

    def write(self, checkpoint: Checkpoint, folder: Path) -> None:
        """See `Exporter`."""
        drawn = _Graphs(checkpoint)
        write_graphs(folder, checkpoint.precision, drawn.prefill, drawn.step)


class _Graphs:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config, self.state = checkpoint.model.config, checkpoint.arrays()
        self.shape, self.inner = checkpoint.architecture, checkpoint.architecture.inner
        self.norms_first = "model.encoder.layer_norm.weight" in self.state

    def _norm(self, g: Graph, x: str, name: str) -> str:
        weight, bias = (
            g.weight(f"{name}.{part}", self.state[f"{name}.{part}"]) for part in ("weight", "bias")
        )
        return g.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=_EPSILON)

    def _around(self, g: Graph, x: str, norm: str, part: Callable[[str], str]) -> str:
        """Add what a part of a layer makes of its input; the norm comes before it or behind."""
        if self.norms_first:
            return g.op("Add", x, part(self._norm(g, x, norm)))
        return self._norm(g, g.op("Add", x, part(x)), norm)

    def _linear(self, g: Graph, x: str, *names: str) -> str:
        """One product for all the named projections, joined; queries scaled by 1/sqrt(d)."""
        joined = {}
        for kind in ("weight", "bias"):
            scales = [self.shape.d_head**-0.5 if name.endswith("q_proj") else 1.0 for name in names]
            parts = zip(names, scales, strict=True)
            joined[kind] = np.concatenate(
                [self.state[f"{name}.{kind}"] * np.float32(scale) for name, scale in parts]
            )
        product = g.linear(x, "+".join(names), joined["weight"])
        return g.op("Add", product, g.weight("+".join(names) + ".bias", joined["bias"]))

    def _projections(self, g: Graph, x: str, attention: str) -> list[str]:
        """Queries, keys and values, by one product."""
        joined = self._linear(g, x, *(f"{attention}.{part}_proj" for part in "qkv"))
        return g.ops("Split", joined, g.const([self.inner] * 3), count=3, axis=-1)

    def _feed_forward(self, g: Graph, x: str, name: str) -> str:
        def part(n: str) -> str:
            activation = ACTIVATIONS[self.config.activation_function]
            return self._linear(g, activation(g, self._linear(g, n, f"{name}.fc1")), f"{name}.fc2")

        return self._around(g, x, f"{name}.final_layer_norm", part)

    def _embed(self, g: Graph, tokens: str, place: str, stack: str) -> str:
        name, places = "model.shared.weight", f"model.{stack}.embed_positions.weight"
        x = g.embed(tokens, name, self.state[name])
        if self.config.scale_embedding:
            x = g.op("Mul", x, g.const(self.shape.d_model**0.5, np.float32))
        x = g.op("Add", x, g.embed(place, places, self.state[places][_OFFSET:]))
        return self._norm(g, x, f"model.{stack}.layernorm_embedding")

    def prefill(self, g: Graph) -> None:
        heads, d = self.shape.heads, self.shape.d_head
        g.input("tokens", np.int64, ["batch", "prompt"])
        g.input("lengths", np.int64, ["batch"])
        size = g.size("tokens", 1)
        mask = length_mask(g, "lengths", size)
        x = self._embed(g, "tokens", g.span(size), "encoder")
        for i in range(self.shape.encoder_layers):
            name = f"model.encoder.layers.{i}"

            def attention(n: str, name: str = f"{name}.self_attn") -> str:
                q, k, v = self._projections(g, n, name)
                q = g.heads(q, [0, 0, heads, d], (0, 2, 1, 3))
                k = g.heads(k, [0, 0, heads, d], (0, 2, 3, 1))
                v = g.heads(v, [0, 0, heads, d], (0, 2, 1, 3))
                scores = g.wide(g.op("MatMul", g.narrow(q), g.narrow(k)))
                seen = g.op("Softmax", g.op("Add", scores, mask), axis=-1)
                mixed = g.wide(g.op("MatMul", g.narrow(seen), g.narrow(v)))
                mixed = g.op("Transpose", mixed, perm=[0, 2, 1, 3])
                return self._linear(g, g.reshape(mixed, [0, 0, self.inner]), f"{name}.out_proj")

            x = self._around(g, x, f"{name}.self_attn_layer_norm", attention)
            x = self._feed_forward(g, x, name)
        if self.norms_first:
            x = self._norm(g, x, "model.encoder.layer_norm")
        for i in range(self.shape.decoder_layers):
            name = f"model.decoder.layers.{i}.encoder_attn"
            key, value = (self._linear(g, x, f"{name}.{part}_proj") for part in "kv")
            key = g.heads(key, [0, 0, heads, d], (0, 2, 3, 1))
            value = g.heads(value, [0, 0, heads, d], (0, 2, 1, 3))
            output_prompt(g, i, key, value, heads, d)

    def step(self, g: Graph) -> None:
        shape = self.shape
        frame = StepFrame(g, shape.decoder_layers, shape.heads, shape.heads, shape.d_head)
        x = self._embed(g, frame.tokens, frame.time, "decoder")
        for i in range(shape.decoder_layers):
            name = f"model.decoder.layers.{i}"

            def own(n: str, i: int = i, name: str = f"{name}.self_attn") -> str:
                q, k, v = self._projections(g, n, name)
                keys, values = frame.append(i, k, v)
                seen = g.op("Softmax", frame.own_scores(q, keys), axis=-1)
                return self._linear(g, frame.join(frame.own_mix(seen, values)), f"{name}.out_proj")

            def read(n: str, i: int = i, name: str = f"{name}.encoder_attn") -> str:
                scores = frame.prompt_scores(self._linear(g, n, f"{name}.q_proj"), i)
                mixed = frame.prompt_mix(g.op("Softmax", scores, axis=-1), i)
                return self._linear(g, frame.join(mixed), f"{name}.out_proj")

            x = self._around(g, x, f"{name}.self_attn_layer_norm", own)
            x = self._around(g, x, f"{name}.encoder_attn_layer_norm", read)
            x = self._feed_forward(g, x, name)
        if self.norms_first:
            x = self._norm(g, x, "model.decoder.layer_norm")
        name = "model.shared.weight"
        head, bias = self.state[name], self.state["final_logits_bias"]
        if bias.any():
            # A column of ones meets the biases; they are zero in nearly all checkpoints.
            x = g.op("Pad", x, g.const([0, 0, 0, 0, 0, 1]), g.const(1.0, np.float32))
            name, head = f"{name}+final_logits_bias", np.concatenate([head, bias.T], axis=1)
        output_logits(g, x, name, head, frame.batch, frame.beams)
