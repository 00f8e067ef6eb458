"""From a Hugging Face configuration to the sizes that cost and state follow from."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from genret_dask.errors import ModelError, SpecError
from genret_dask.models.families import family_of
from genret_dask.models.flops import Architecture


def architecture_of(config: Any) -> Architecture:
    """Return the `Architecture` of a configuration of a family that can be trained.

    Raises
    ------
    ModelError
        The configuration is of another family, or has sizes that no model can have.
    """
    try:
        family = family_of(config.model_type)
    except SpecError as error:
        raise ModelError(
            f"a {config.model_type} configuration: {error.found}", expected=error.expected
        ) from error
    try:
        return family.architecture(config)
    except (ValidationError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        where = "".join(f"{part}: " for part in reason.get("loc", ()))
        raise ModelError(
            f"a {config.model_type} configuration with wrong sizes: {where}{reason['msg']}",
            expected="whole numbers above 0 for its widths, heads and layers",
            fix="correct the model's config",
        ) from error


def count_parameters(model: Any) -> int:
    """Count parameters other than embeddings of tokens and positions; a shared one counts once.

    A head tied to the embeddings is left out with them, an untied head is counted.
    """
    from torch.nn import Embedding

    embeddings = [model.get_input_embeddings()]
    if (positions := getattr(model.config, "max_position_embeddings", None)) is not None:
        tables = (module for module in model.modules() if isinstance(module, Embedding))
        embeddings += [table for table in tables if table.num_embeddings >= positions]
    left_out = {id(table.weight) for table in embeddings}
    return sum(one.numel() for one in model.parameters() if id(one) not in left_out)
