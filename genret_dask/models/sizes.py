"""The sizes of presets, counted from models without weights."""

from __future__ import annotations

from typing import Any

from genret_dask.models.architectures import architecture_of, count_parameters
from genret_dask.models.configs import config_of
from genret_dask.models.families import family_of
from genret_dask.specs import ModelSpec
from genret_dask.specs.registry import names_of


def preset_sizes(vocabulary: int, family: str | None = None) -> list[dict[str, Any]]:
    """Describe every preset, or those of a family.

    Parameters
    ----------
    vocabulary : int
        Rows of the embeddings: tokens of the tokeniser, the start token, codes.

    Returns
    -------
    list of dict
        family, size; n_params (N) and parameters, all of them, embeddings included; layers, as
        "encoder + decoder" where there are both; d_model, heads, d_ff; bytes in float32.

    Raises
    ------
    SpecError
        There is no such family.
    """
    import torch

    found = []
    for name in names_of("families") if family is None else [family]:
        one = family_of(name)
        for size in one.presets:
            config = config_of(ModelSpec(family=name, size=size), vocab_size=vocabulary)
            with torch.device("meta"):
                model = one.load_model_class()(config)
            shape = architecture_of(config)
            layers = str(shape.decoder_layers)
            count = sum(weights.numel() for weights in model.parameters())
            found.append(
                {
                    "family": name,
                    "size": size,
                    "n_params": count_parameters(model),
                    "parameters": count,
                    "layers": f"{shape.encoder_layers} + {layers}"
                    if shape.encoder_layers
                    else layers,
                    "d_model": shape.d_model,
                    "heads": shape.heads,
                    "d_ff": shape.d_ff,
                    "bytes": 4 * count,
                }
            )
    return found
