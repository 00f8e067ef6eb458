"""LLaMA: the prompt's keys and values, shared by all beams, and a decoder step.

The start token belongs to the prompt here: the hidden state that it leads to comes out of the
prefill, as those of later tokens come out of steps. The output head is a graph of its own for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genret_dask.errors import ModelError
from genret_dask.exporters.activations import ACTIVATIONS, activation_problems
from genret_dask.exporters.attention import StepFrame, length_mask, output_prompt
from genret_dask.exporters.base import Checkpoint, Exporter
from genret_dask.exporters.graph import MASKED, Graph
from genret_dask.exporters.head import output_logits
from genret_dask.exporters.select import write_graphs
from genret_dask.models.architectures import architecture_of
from genret_dask.models.families import family_of

_ROTARY = ("default", "linear", "llama3", "yarn")
"""Scalings of the rotary angles that do not follow the length of the text."""
_WINDOW = 1024
"""The narrowest window of attention that is taken; studies hold their texts against any."""


class LlamaExporter(Exporter):
    """Exports LLaMA, and families whose weights have its names, as beam-native graphs.

    A sequence is the query's tokens, the start token, the identifier's tokens.
    """

    def check(self, config: Any) -> list[str]:
        """See `Exporter`."""
        rope = (
            getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
        )
        kind = rope.get("rope_type", rope.get("type", "default"))
        problems = []
        if kind not in _ROTARY:
            problems.append(
                f"rotary positions are scaled as {kind!r}, which follows the length of the text; "
                f"expected one of {', '.join(_ROTARY)}"
            )
        elif kind != "default":
            problems += _scaling_problems(rope)
        if (factor := rope.get("partial_rotary_factor", 1.0)) != 1.0:
            problems.append(f"partial_rotary_factor is {factor}; expected 1.0")
        window = family_of(config.model_type).longest(config)
        if window is not None and window < _WINDOW:
            problems.append(
                f"sliding_window is {window}; expected none, or {_WINDOW} or more: the graphs "
                "attend to all tokens"
            )
        problems += activation_problems("hidden_act", getattr(config, "hidden_act", "silu"))
        try:
            shape = architecture_of(config)
        except ModelError as error:
            return [*problems, error.found]
        if shape.heads % shape.kv_heads:
            problems.append(
                f"num_key_value_heads is {shape.kv_heads}; expected a divisor of the "
                f"{shape.heads} num_attention_heads"
            )
        if shape.d_model % shape.heads and shape.d_head == shape.d_model // shape.heads:
            problems.append(
                f"hidden_size is {shape.d_model}; expected a multiple of the {shape.heads} "
                "num_attention_heads, or head_dim"
            )
        if shape.d_head % 2:
            problems.append(f"a head has {shape.d_head} dimensions; expected an even number")
        return problems

    def write(self, checkpoint: Checkpoint, folder: Path) -> None:
        """See `Exporter`."""
        drawn = _Graphs(checkpoint)
        write_graphs(folder, checkpoint.precision, drawn.prefill, drawn.step, drawn.head)


def _scaling_problems(rope: Mapping[str, Any]) -> Iterator[str]:
    """Settings of scaled rotary positions that no finite frequency comes of."""
    factor = rope.get("factor")
    if not isinstance(factor, int | float) or not 1 <= factor < float("inf"):
        yield f"the factor of its rotary positions is {factor!r}; expected a number of 1 or more"
    low, high = rope.get("low_freq_factor"), rope.get("high_freq_factor")
    if low is not None and high is not None and not 0 < low < high:
        yield f"low_freq_factor is {low} and high_freq_factor {high}; expected 0 < low < high"


class _Graphs:
    def __init__(self, checkpoint: Checkpoint) -> None:
        model, shape = checkpoint.model, checkpoint.architecture
        self.config, self.shape, self.state = model.config, shape, checkpoint.arrays()
        self.start_token, self.inner = checkpoint.start_token, shape.inner
        rotary = model.model.rotary_emb
        self.frequencies = rotary.inv_freq.numpy()
        self.angle_scale = float(rotary.attention_scaling)

    def _norm(self, g: Graph, x: str, name: str) -> str:
        name = f"{name}.weight"
        return g.rms_norm(x, name, self.state[name], self.config.rms_norm_eps)

    def _project(self, g: Graph, x: str, layer: int, part: str) -> str:
        """The query (scaled by 1/sqrt(d)), key or value projection; its heads normed, if they are.

        [.., positions, heads * width]
        """
        scale = np.float32(self.shape.d_head**-0.5 if part == "q" else 1.0)
        attention = f"model.layers.{layer}.self_attn"
        norm = self.state.get(f"{attention}.{part}_norm.weight")
        if norm is None:
            return self._linear(g, x, f"{attention}.{part}_proj", scale)
        product = self._linear(g, x, f"{attention}.{part}_proj")
        d, name = self.shape.d_head, f"{attention}.{part}_norm.weight"
        heads = g.reshape(product, [0, 0, -1, d])
        heads = g.rms_norm(heads, name, norm * scale, self.config.rms_norm_eps)
        return g.reshape(heads, [0, 0, self.inner if part == "q" else self.shape.kv])

    def _linear(self, g: Graph, x: str, name: str, scale: Any = 1.0) -> str:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        if scale != 1.0:
            weight, bias = (part if part is None else part * scale for part in (weight, bias))
        product = g.linear(x, name, weight)
        return product if bias is None else g.op("Add", product, g.weight(f"{name}.bias", bias))

    def _feed_forward(self, g: Graph, x: str, layer: int) -> str:
        name = f"model.layers.{layer}"
        n = self._norm(g, x, f"{name}.post_attention_layernorm")
        gate, up = (self._linear(g, n, f"{name}.mlp.{part}_proj") for part in ("gate", "up"))
        inner = g.op("Mul", ACTIVATIONS[self.config.hidden_act](g, gate), up)
        return g.op("Add", x, self._linear(g, inner, f"{name}.mlp.down_proj"))

    def _angles(self, g: Graph, position: str) -> tuple[str, str]:
        """Cosines and sines of positions, each [positions, width / 2]."""
        place = g.op("Cast", g.op("Unsqueeze", position, g.const([-1])), to=1)
        angle = g.op("Mul", place, g.const(self.frequencies, np.float32))
        cosine, sine = g.op("Cos", angle), g.op("Sin", angle)
        if self.angle_scale == 1.0:
            return cosine, sine
        scale = g.const(self.angle_scale, np.float32)
        return g.op("Mul", cosine, scale), g.op("Mul", sine, scale)

    def _rotate(self, g: Graph, x: str, place: str, angles: tuple[str, str]) -> str:
        """Turn [.., positions, heads * width] by the angles in row `place`."""
        return g.own_op("RotaryEmbedding", x, place, *angles)

    def _embed(self, g: Graph, tokens: str) -> str:
        name = "model.embed_tokens.weight"
        return g.embed(tokens, name, self.state[name])

    def prefill(self, g: Graph) -> None:
        shape = self.shape
        heads, kv_heads, d = shape.heads, shape.kv_heads, shape.d_head
        g.input("tokens", np.int64, ["batch", "query"])
        # Causal attention never sees the padding to its right; what stands there is masked later.
        g.input("lengths", np.int64, ["batch"])
        batch, size = g.size("tokens", 0), g.op("Add", g.size("tokens", 1), g.const([1]))
        place = g.span(size)
        angles, first = self._angles(g, place), g.const([0])
        rows, columns = (g.op("Unsqueeze", place, g.const([axis])) for axis in (1, 0))
        seen = g.op("LessOrEqual", columns, rows)
        mask = g.op("Where", seen, g.const(0.0, np.float32), g.const(MASKED, np.float32))
        last = g.op("Unsqueeze", "lengths", g.const([1]))
        tokens = g.op("Pad", "tokens", g.const([0, 1]), "", g.const([1]))
        opens = g.op("Equal", columns, last)
        x = self._embed(g, g.op("Where", opens, g.const(self.start_token), tokens))
        for i in range(shape.decoder_layers):
            name = f"model.layers.{i}"
            n = self._norm(g, x, f"{name}.input_layernorm")
            k = self._rotate(g, self._project(g, n, i, "k"), first, angles)
            key = g.heads(k, [0, 0, kv_heads, d], (0, 2, 3, 1))
            value = g.heads(self._project(g, n, i, "v"), [0, 0, kv_heads, d], (0, 2, 1, 3))
            output_prompt(g, i, key, value, kv_heads, d)
            if i == shape.decoder_layers - 1:
                # Of the last layer's output only the start token's is read.
                x, n = (g.op("GatherND", value, last, batch_dims=1) for value in (x, n))
                x, n = (g.op("Unsqueeze", value, g.const([1])) for value in (x, n))
                mask = length_mask(g, g.op("Add", "lengths", g.const(1)), size)
                q = self._rotate(g, self._project(g, n, i, "q"), last, angles)
            else:
                q = self._rotate(g, self._project(g, n, i, "q"), first, angles)
            q = g.heads(q, [0, 0, heads, d], (0, 2, 1, 3))
            # Query heads that share a key become rows of one product.
            q = g.reshape(q, [0, kv_heads, -1, d])
            scores = g.wide(g.op("MatMul", g.narrow(q), g.narrow(key)))
            scores = g.reshape(scores, [batch, heads, -1, size])
            weights = g.op("Softmax", g.op("Add", scores, mask), axis=-1)
            weights = g.reshape(weights, [batch, kv_heads, -1, size])
            mixed = g.wide(g.op("MatMul", g.narrow(weights), g.narrow(value)))
            mixed = g.reshape(mixed, [batch, heads, -1, d])
            mixed = g.op("Transpose", mixed, perm=[0, 2, 1, 3])
            mixed = g.reshape(mixed, [0, 0, self.inner])
            x = g.op("Add", x, self._linear(g, mixed, f"{name}.self_attn.o_proj"))
            x = self._feed_forward(g, x, i)
        hidden = self._norm(g, x, "model.norm")
        g.output("hidden", hidden, np.float32, ["batch", 1, shape.d_model])

    def step(self, g: Graph) -> None:
        shape = self.shape
        heads, kv_heads, d = shape.heads, shape.kv_heads, shape.d_head
        frame = StepFrame(g, shape.decoder_layers, heads, kv_heads, d)
        x = self._embed(g, frame.tokens)
        # A query's beams stand at one position: a row's angles are its query's.
        angles = self._angles(g, g.op("Add", frame.lengths, frame.time))
        query = g.op("Unsqueeze", g.span(frame.batch), g.const([1]))
        place = g.op("Expand", query, g.op("Concat", frame.batch, frame.beams, axis=0))
        place = g.reshape(place, [-1, 1])
        now = g.op("Add", frame.time, g.const([1]))
        size = g.size("prompt_key_0", 3)
        for i in range(shape.decoder_layers):
            name = f"model.layers.{i}"
            n = self._norm(g, x, f"{name}.input_layernorm")
            q, k = (self._rotate(g, self._project(g, n, i, part), place, angles) for part in "qk")
            keys, values = frame.append(i, k, self._project(g, n, i, "v"))
            own = frame.own_scores(q, keys)
            scores = g.op("Concat", frame.prompt_scores(q, i), own, axis=-1)
            weights = g.op("Softmax", scores, axis=-1)
            cut = g.op("Concat", size, now, axis=0)
            prompt, own = g.ops("Split", weights, cut, count=2, axis=-1)
            mixed = g.op("Add", frame.prompt_mix(prompt, i), frame.own_mix(own, values))
            mixed = self._linear(g, frame.join(mixed), f"{name}.self_attn.o_proj")
            x = g.op("Add", x, mixed)
            x = self._feed_forward(g, x, i)
        hidden = g.reshape(self._norm(g, x, "model.norm"), [frame.batch, -1, shape.d_model])
        g.output("hidden", hidden, np.float32, ["batch", "beams", shape.d_model])

    def head(self, g: Graph) -> None:
        hidden = g.input("hidden", np.float32, ["batch", "beams", self.shape.d_model])
        tied = self.config.tie_word_embeddings
        name = "model.embed_tokens.weight" if tied else "lm_head.weight"
        output_logits(g, hidden, name, self.state[name], g.size(hidden, 0), g.size(hidden, 1))
