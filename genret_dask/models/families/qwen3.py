"""Qwen3: LLaMA with an RMS norm of every head's queries and keys."""

from __future__ import annotations

from genret_dask.models.families.base import Count, Family
from genret_dask.models.families.llama import SIZES
from genret_dask.models.families.qwen2 import Qwen2Fields


class Qwen3Fields(Qwen2Fields):
    """What `config` may give of a `Qwen3Config`."""

    head_dim: Count = 128
    attention_bias: bool = False


class Qwen3(Family):
    """Yang et al. (2025), "Qwen3 Technical Report" (arXiv 2505.09388)."""

    config_class = "Qwen3Config"
    model_class = "Qwen3ForCausalLM"
    fields = Qwen3Fields
    presets = {
        name: {**sizes, "head_dim": sizes["hidden_size"] // sizes["num_attention_heads"]}
        for name, sizes in SIZES.items()
    }
