"""T5: an encoder that reads the query, and a decoder that attends to it."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveFloat

from genret_dask.models.families.base import Count, EncoderDecoder, Share
from genret_dask.models.flops import Architecture
from genret_dask.specs.validation import Record


class T5Fields(Record):
    """What `config` may give of a `T5Config`."""

    d_model: Count = 512
    d_ff: Count = 2048
    d_kv: Count = 64
    num_layers: Count = 6
    num_decoder_layers: Count | None = None
    num_heads: Count = 8
    feed_forward_proj: str = "relu"
    relative_attention_num_buckets: Count = 32
    relative_attention_max_distance: Count = 128
    dropout_rate: Share = 0.0
    layer_norm_epsilon: PositiveFloat = 1e-6
    initializer_factor: PositiveFloat = 1.0
    tie_word_embeddings: bool = True


def _size(d_model: int, d_ff: int, encoder: int, decoder: int, heads: int, d_kv: int) -> dict:
    return {
        "d_model": d_model,
        "d_ff": d_ff,
        "num_layers": encoder,
        "num_decoder_layers": decoder,
        "num_heads": heads,
        "d_kv": d_kv,
    }


class T5(EncoderDecoder):
    """Raffel et al. (2020)."""

    config_class = "T5Config"
    model_class = "T5ForConditionalGeneration"
    fields = T5Fields
    presets = {
        "femto": _size(32, 64, 1, 1, 2, 16),
        "pico": _size(64, 128, 1, 1, 2, 32),
        "nano": _size(80, 192, 2, 2, 4, 20),
        "micro": _size(128, 384, 2, 2, 4, 32),
        "mini": _size(256, 1024, 4, 4, 4, 64),
        "small": _size(512, 2048, 6, 6, 8, 64),
        "base": _size(768, 3072, 12, 12, 12, 64),
        "large": _size(1024, 4096, 24, 24, 16, 64),
    }
    dropout = "dropout_rate"
    exporter = "t5"

    def architecture(self, config: Any) -> Architecture:
        """See `Family`."""
        return Architecture(
            kind="encoder-decoder",
            d_model=config.d_model,
            heads=config.num_heads,
            kv_heads=config.num_heads,
            d_head=config.d_kv,
            d_ff=config.d_ff,
            gated=config.is_gated_act,
            encoder_layers=config.num_layers,
            decoder_layers=config.num_decoder_layers,
            vocab_size=config.vocab_size,
        )

    def reading_attention(self, model: Any) -> list[tuple[Any, Any]]:
        """See `Family`."""
        layers = [block.layer[1].EncDecAttention for block in model.decoder.block]
        return [(layer.v, layer.o) for layer in layers]

    def undo_head_scale(self, model: Any) -> None:
        """Undo the tied head's division by the square root of the width.

        A head of its own does not divide, and its rows have unit variance.
        """
        power = 0.5 if model.config.tie_word_embeddings else -0.5
        model.decoder.final_layer_norm.weight.fill_(model.config.d_model**power)

    def untie(self, model: Any) -> None:
        """See `Family`; a head of its own has the factor in it that a tied one is given."""
        model.config.tie_word_embeddings = False
        model.lm_head.weight.mul_(model.config.d_model**-0.5)
