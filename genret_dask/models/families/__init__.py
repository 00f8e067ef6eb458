"""Model families, one file each: the entry points of `genret_dask.families`."""

from __future__ import annotations

from genret_dask.models.families.base import Count, EncoderDecoder, Family, Share
from genret_dask.specs.registry import entry

__all__ = ["Count", "EncoderDecoder", "Family", "Share", "family_of"]


def family_of(name: str) -> Family:
    """Return the family of that name: the `model_type` of its configurations.

    Raises
    ------
    SpecError
        No installed package has it, or it cannot be imported.
    """
    family: Family = entry("families", name)()
    return family
