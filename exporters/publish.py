"""From a checkpoint to a published folder: write, check against PyTorch, rename into place."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import torch
import transformers

from genret_dask.errors import ModelError
from genret_dask.exporters.base import Checkpoint, Exporter
from genret_dask.exporters.parity import TOLERANCES, check_parity, session_on_cpu
from genret_dask.exporters.quantise import quantise
from genret_dask.models.architectures import count_parameters
from genret_dask.models.families import exports_any, family_of
from genret_dask.models.manifest import (
    MANIFEST,
    Manifest,
    Parity,
    Reading,
    Training,
    hash_files,
    write_manifest,
)
from genret_dask.models.pretrained import load_config, load_whole
from genret_dask.specs import Precision
from genret_dask.storage.places import PARTIAL, staged
from genret_dask.storage.versions import versions_of

logger = logging.getLogger(__name__)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_PACKAGES = (
    "genret-dask",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "optimum-onnx",
    "torch",
    "transformers",
)


def load_checkpoint(
    exporter: Exporter, family: str, folder: Path, start_token: int, precision: Precision
) -> Checkpoint:
    """Load a local Hugging Face folder in float32, for evaluation.

    Parameters
    ----------
    family : str
        The checkpoint's, or the exporter's name, of which checkpoints may be of any family.

    Raises
    ------
    ModelError
        The folder is missing or incomplete, holds another family, or what the exporter does not
        take; or the start token is not a row of the model.
    """
    if precision not in exporter.precisions:
        raise ModelError(
            f"family {family} does not export in {precision}",
            expected=" or ".join(exporter.precisions),
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json",
            expected="a Hugging Face folder: config.json and weights as safetensors",
        )
    config = load_config(str(folder), local_files_only=True)
    model_class = getattr(transformers, exporter.model_class)
    if not exports_any(family):
        if config.model_type != family:
            raise ModelError(
                f"{folder} holds a {config.model_type} model",
                expected=family,
                fix=f"export it as family {config.model_type}, or as optimum",
            )
        model_class = family_of(family).load_model_class()
    if problems := exporter.check(config):
        raise ModelError(f"{folder}: {'; '.join(problems)}")
    model = load_whole(
        model_class,
        str(folder),
        config=config,
        local_files_only=True,
        attn_implementation="eager",
    )
    model = model.to(torch.float32).eval()
    architecture = exporter.architecture(model)
    if not 0 <= start_token < architecture.vocab_size:
        raise ModelError(
            f"start token {start_token}",
            expected=f"a row of the vocabulary of {architecture.vocab_size}",
        )
    return Checkpoint(folder, model, architecture, start_token, precision)


def publish(
    exporter: Exporter,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    tolerance: float | None,
    reading: Reading | None,
    training: Training | None,
) -> Manifest:
    """Write a model's files beside `folder`, check them against PyTorch, and move them there.

    Raises
    ------
    ParityError
        The graphs disagree with PyTorch. `folder` stays as it was.
    """
    precision, architecture = checkpoint.precision, checkpoint.architecture
    tolerance = TOLERANCES[precision] if tolerance is None else tolerance
    with staged(folder, MANIFEST) as staging:
        if precision == "int8":
            with tempfile.TemporaryDirectory(suffix=PARTIAL, dir=staging.parent) as source:
                exporter.write(checkpoint, Path(source))
                quantise(Path(source), staging)
        else:
            exporter.write(checkpoint, staging)
        for name in _TOKENIZER_FILES:
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, staging / name)
        unchecked = Parity(max_difference=float("inf"), tolerance=tolerance, compared=0)
        manifest = Manifest(
            family=checkpoint.model.config.model_type,
            graph=exporter.graph,
            precision=precision,
            n_params=count_parameters(checkpoint.model),
            start_token=checkpoint.start_token,
            vocab_size=architecture.vocab_size,
            architecture=architecture,
            files=hash_files(staging),
            parity=unchecked,
            reading=reading,
            training=training,
            versions=versions_of(_PACKAGES),
        )
        with session_on_cpu(staging, manifest) as session:
            parity = check_parity(session, checkpoint.model, tolerance=tolerance)
        manifest = manifest.model_copy(update={"parity": parity})
        write_manifest(staging, manifest)
    logger.info("exported %s to %s", manifest.family, folder)
    return manifest
