"""From a Hugging Face configuration to the sizes that cost and state follow from."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from genret_dask.errors import ModelError
from genret_dask.models.flops import Architecture


def architecture_of(config: Any) -> Architecture:
    """The `Architecture` of a T5 or LLaMA configuration.

    Raises
    ------
    ModelError
        The configuration is of another family, or has sizes that no model can have.
    """
    try:
        return _architecture(config)
    except (ValidationError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        where = "".join(f"{part}: " for part in reason.get("loc", ()))
        raise ModelError(
            f"a {config.model_type} configuration with wrong sizes: {where}{reason['msg']}",
            expected="whole numbers above 0 for its widths, heads and layers",
            fix="correct the model's config",
        ) from error


def _architecture(config: Any) -> Architecture:
    if config.model_type == "t5":
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
    if config.model_type == "llama":
        return Architecture(
            kind="decoder",
            d_model=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            d_head=getattr(config, "head_dim", None)
            or config.hidden_size // config.num_attention_heads,
            d_ff=config.intermediate_size,
            gated=True,
            encoder_layers=0,
            decoder_layers=config.num_hidden_layers,
            vocab_size=config.vocab_size,
        )
    raise ModelError(f"a {config.model_type} configuration", expected="t5 or llama")
