"""Exporters: graphs of trained models, by the entry points of `genret_dask.exporters`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genret_dask.errors import ModelError, SpecError
from genret_dask.exporters.base import Exporter
from genret_dask.models.families import exports_any, family_of
from genret_dask.models.manifest import Manifest, Reading, Training
from genret_dask.models.torch_state import alone_in_torch
from genret_dask.specs import Precision
from genret_dask.specs.registry import entry, names_of
from genret_dask.storage.places import place_of


def exporter_of(family: str) -> Exporter:
    """Return the exporter of a family, or the one of that name.

    Raises
    ------
    ModelError
        There is neither.
    """
    name = family
    if not exports_any(family):
        try:
            name = family_of(family).exporter
        except SpecError as error:
            known = sorted({*names_of("families"), *names_of("exporters")})
            raise ModelError(
                f"no exporter for family {family!r}: {error.found}",
                expected=f"one of {', '.join(known)}",
                fix="family optimum exports any causal language model that optimum knows; a "
                "package may add a family through the entry points genret_dask.families",
            ) from error
    exporter: Exporter = entry("exporters", name)()
    return exporter


def config_problems(family: str, config: Any) -> list[str]:
    """Return what keeps a transformers configuration from being exported, a line each."""
    return exporter_of(family).check(config)


def export_model(
    family: str,
    checkpoint: Path,
    folder: Path,
    *,
    start_token: int,
    tolerance: float | None = None,
    precision: Precision = "fp32",
    reading: Reading | None = None,
    training: Training | None = None,
) -> Manifest:
    """Export a checkpoint, and check the graphs against PyTorch.

    Parameters
    ----------
    family : str
        The checkpoint's, or the name of an exporter that takes others.
    checkpoint : Path
        A Hugging Face folder: config.json and safetensors. Its code is never run.
    folder : Path
        Where the exported model goes; replaced when there.
    start_token : int
        The token that opens an identifier: the decoder's first input, or of a decoder-only model
        the token between a query and its identifier.
    tolerance : float, optional
        Largest accepted |difference| in log-probability against PyTorch; by default the one that
        `genret_dask.exporters.parity.TOLERANCES` has for the precision.
    precision : {"fp32", "fp16", "bf16", "int8"}
        16 bits: see `genret_dask.exporters.graph`; int8: see `genret_dask.exporters.quantise`.
    reading : Reading, optional
        How the model reads a text; a study searches no model without it.
    training : Training, optional
        What it was trained on; a study has no model without it.

    Raises
    ------
    ModelError
        There is no exporter for the family, it does not take this checkpoint or precision, or the
        checkpoint is incomplete or of another family.
    ParityError
        The graphs disagree with PyTorch; nothing is published.
    """
    exporter = exporter_of(family)
    from genret_dask.exporters.publish import load_checkpoint, publish

    with alone_in_torch():
        source = load_checkpoint(exporter, family, Path(checkpoint), start_token, precision)
        return publish(
            exporter,
            source,
            place_of(folder),
            tolerance=tolerance,
            reading=reading,
            training=training,
        )
