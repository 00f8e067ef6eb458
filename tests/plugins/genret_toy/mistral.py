"""Mistral: built like LLaMA, so that what its configuration is called is all there is to say."""

from genret_dask.models.families import Count, Family
from genret_dask.specs.validation import Record


class MistralFields(Record):
    """What `config` may give of a `MistralConfig`."""

    hidden_size: Count = 4096
    intermediate_size: Count = 14336
    num_hidden_layers: Count = 32
    num_attention_heads: Count = 32
    num_key_value_heads: Count = 8
    tie_word_embeddings: bool = True


class Mistral(Family):
    """Jiang et al. (2023), "Mistral 7B" (arXiv 2310.06825), without its sliding window."""

    config_class = "MistralConfig"
    model_class = "MistralForCausalLM"
    fields = MistralFields
    presets = {
        "tiny": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        }
    }
    defaults = {"tie_word_embeddings": True, "sliding_window": None}
