"""BART: an encoder-decoder with learned positions; SEAL, MINDER and GENRE fine-tune it."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveFloat

from genret_dask.models.families.base import Count, EncoderDecoder, Share
from genret_dask.models.families.t5 import T5
from genret_dask.models.flops import Architecture
from genret_dask.specs.validation import Record


class BartFields(Record):
    """What `config` may give of a `BartConfig`, or of an `MBartConfig`."""

    d_model: Count = 1024
    encoder_layers: Count = 12
    encoder_attention_heads: Count = 16
    encoder_ffn_dim: Count = 4096
    decoder_layers: Count = 12
    decoder_attention_heads: Count = 16
    decoder_ffn_dim: Count = 4096
    activation_function: str = "gelu"
    max_position_embeddings: Count = 1024
    scale_embedding: bool = False
    dropout: Share = 0.0
    attention_dropout: Share = 0.0
    activation_dropout: Share = 0.0
    init_std: PositiveFloat = 0.02


def _size(sizes: dict[str, Any]) -> dict[str, Any]:
    """The fields of a size of T5."""
    stacks = (("encoder", sizes["num_layers"]), ("decoder", sizes["num_decoder_layers"]))
    found = {"d_model": sizes["d_model"]}
    for stack, layers in stacks:
        found[f"{stack}_layers"] = layers
        found[f"{stack}_attention_heads"] = sizes["num_heads"]
        found[f"{stack}_ffn_dim"] = sizes["d_ff"]
    return found


class Bart(EncoderDecoder):
    """Lewis et al. (2020)."""

    config_class = "BartConfig"
    model_class = "BartForConditionalGeneration"
    fields = BartFields
    presets = {name: _size(sizes) for name, sizes in T5.presets.items() if name != "large"}
    defaults = {"tie_word_embeddings": True, "max_position_embeddings": 1024}
    dropout = "dropout"
    exporter = "bart"

    def architecture(self, config: Any) -> Architecture:
        """See `Family`; both stacks have the decoder's heads and widths."""
        heads = config.decoder_attention_heads
        return Architecture(
            kind="encoder-decoder",
            d_model=config.d_model,
            heads=heads,
            kv_heads=heads,
            d_head=config.d_model // heads,
            d_ff=config.decoder_ffn_dim,
            gated=False,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            vocab_size=config.vocab_size,
        )

    def longest(self, config: Any) -> int | None:
        """See `Family`; either stack has so many positions."""
        positions: int = config.max_position_embeddings
        return positions

    def reading_attention(self, model: Any) -> list[tuple[Any, Any]]:
        """See `Family`."""
        layers = [layer.encoder_attn for layer in model.get_decoder().layers]
        return [(layer.v_proj, layer.out_proj) for layer in layers]
