"""Seed-OSS: built like LLaMA, so that what its configuration is called is all there is to say."""

from genret_dask.models.families import Count, Family
from genret_dask.specs.validation import Record


class SeedOssFields(Record):
    """What `config` may give of a `SeedOssConfig`."""

    hidden_size: Count = 4096
    intermediate_size: Count = 27648
    num_hidden_layers: Count = 64
    num_attention_heads: Count = 80
    num_key_value_heads: Count = 8
    head_dim: Count = 128
    tie_word_embeddings: bool = True


class SeedOss(Family):
    """Seed-OSS of ByteDance (2025)."""

    config_class = "SeedOssConfig"
    model_class = "SeedOssForCausalLM"
    fields = SeedOssFields
    presets = {
        "tiny": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
        }
    }
    defaults = {"tie_word_embeddings": True, "residual_dropout": 0.0}
