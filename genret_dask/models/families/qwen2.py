"""Qwen2 and Qwen2.5: LLaMA with biases in the query, key and value projections."""

from __future__ import annotations

from pydantic import NonNegativeInt

from genret_dask.models.families.base import Count, Family
from genret_dask.models.families.llama import SIZES, DecoderFields


class Qwen2Fields(DecoderFields):
    """What `config` may give of a `Qwen2Config`."""

    num_key_value_heads: Count = 32
    use_sliding_window: bool = False
    sliding_window: Count | None = None
    max_window_layers: NonNegativeInt = 28
    layer_types: list[str] | None = None


class Qwen2(Family):
    """Yang et al. (2024), "Qwen2 Technical Report" (arXiv 2407.10671)."""

    config_class = "Qwen2Config"
    model_class = "Qwen2ForCausalLM"
    fields = Qwen2Fields
    presets = SIZES
