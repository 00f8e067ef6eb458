"""Mistral: LLaMA with a window of attention, which no text of a study may reach beyond."""

from __future__ import annotations

from genret_dask.models.families.base import Count, Family
from genret_dask.models.families.llama import SIZES, DecoderFields


class MistralFields(DecoderFields):
    """What `config` may give of a `MistralConfig`."""

    num_key_value_heads: Count = 8
    head_dim: Count | None = None
    sliding_window: Count | None = None


class Mistral(Family):
    """Jiang et al. (2023), "Mistral 7B" (arXiv 2310.06825)."""

    config_class = "MistralConfig"
    model_class = "MistralForCausalLM"
    fields = MistralFields
    presets = SIZES
    defaults = {**Family.defaults, "sliding_window": None}
