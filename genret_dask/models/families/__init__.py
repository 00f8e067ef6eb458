"""Model families, one file each: the entry points of `genret_dask.families`."""

from __future__ import annotations

from genret_dask.errors import SpecError
from genret_dask.models.families.base import Count, EncoderDecoder, Family, Share
from genret_dask.models.families.generic import family_class, refusal
from genret_dask.specs.registry import entry, names_of

__all__ = ["Count", "EncoderDecoder", "Family", "Share", "exports_any", "family_of"]


def exports_any(name: str) -> bool:
    """Whether a name is that of an exporter which takes checkpoints of any family."""
    return name in names_of("exporters") and name not in names_of("families")


def family_of(name: str) -> Family:
    """Return the family of that name: the `model_type` of its configurations.

    A causal model that no installed package has a family for is built by transformers and exported
    by optimum, if both know it.

    Raises
    ------
    SpecError
        There is none, or it cannot be imported.
    """
    installed = names_of("families")
    if name in installed:
        family: Family = entry("families", name)()
        return family
    if reason := refusal(name):
        raise SpecError(
            f"family {name!r} cannot be trained: {reason}",
            expected=f"one of {', '.join(installed)}, or the model_type of a causal language "
            "model that transformers and optimum know",
            fix="install a package that brings it",
        )
    return family_class(name)()
