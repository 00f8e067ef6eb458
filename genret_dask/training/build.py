"""The models to train, in torch: from scratch by their configuration, or from pretrained weights.

The vocabulary of a trained model is its tokeniser's rows, then one start row (the token that opens
an identifier), then the code rows, one block a level.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from genret_dask.models.configs import config_of, load_source
from genret_dask.models.families import family_of
from genret_dask.specs import ModelSpec


def build_model(
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerFast,
    code_rows: int,
    *,
    dropout: float,
    seed: int,
) -> tuple[PreTrainedModel, int]:
    """Make the model to train, in float32.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        The study's for models from scratch, that of the weights for pretrained ones.
    code_rows : int
        Vocabulary rows of the identifiers.

    Returns
    -------
    model, start_token
        Code rows begin at ``start_token + 1``.

    Raises
    ------
    SpecError
        The family or the preset is unknown, or the config has an unknown field.
    ModelError
        The pretrained weights are missing or belong to another family.
    """
    torch.manual_seed(seed)
    start = len(tokenizer)
    if spec.pretrained is not None:
        model = load_source(spec, spec.pretrained, config_of(spec), torch.float32)
        model.resize_token_embeddings(start + 1 + code_rows)
    else:
        config = config_of(
            spec,
            dropout=dropout,
            vocab_size=start + 1 + code_rows,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        model = family_of(spec.family).load_model_class()(config)
    model.config.decoder_start_token_id = start
    model.config.bos_token_id = start
    return model, start
