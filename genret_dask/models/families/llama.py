"""LLaMA: the decoder-only family that the defaults of `Family` describe."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveFloat

from genret_dask.models.families.base import Count, Family, Share
from genret_dask.specs.validation import Record


class DecoderFields(Record):
    """What the configurations of LLaMA and of families that are built like it have in common."""

    hidden_size: Count = 4096
    intermediate_size: Count = 11008
    num_hidden_layers: Count = 32
    num_attention_heads: Count = 32
    num_key_value_heads: Count | None = None
    hidden_act: str = "silu"
    rope_theta: PositiveFloat = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    max_position_embeddings: Count = 2048
    attention_dropout: Share = 0.0
    rms_norm_eps: PositiveFloat = 1e-6
    initializer_range: PositiveFloat = 0.02
    tie_word_embeddings: bool = True


class LlamaFields(DecoderFields):
    """What `config` may give of a `LlamaConfig`."""

    head_dim: Count | None = None
    attention_bias: bool = False
    mlp_bias: bool = False


def _size(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


SIZES = {
    "femto": _size(32, 64, 2, 2, 2),
    "pico": _size(64, 128, 2, 2, 2),
    "nano": _size(80, 208, 3, 4, 4),
    "micro": _size(128, 384, 3, 4, 4),
    "mini": _size(256, 688, 6, 4, 4),
    "small": _size(512, 1376, 14, 8, 8),
    "base": _size(768, 2048, 24, 12, 12),
}
"""Presets of LLaMA and of families that are built like it."""


class Llama(Family):
    """Touvron et al. (2023)."""

    config_class = "LlamaConfig"
    model_class = "LlamaForCausalLM"
    fields = LlamaFields
    presets = {**SIZES, "1b": _size(2048, 5504, 22, 32, 4)}
