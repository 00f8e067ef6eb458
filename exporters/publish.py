"""From a checkpoint to a published folder: write, check against PyTorch, rename into place."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

import genret_dask
from genret_dask.errors import ModelError
from genret_dask.exporters.parity import TOLERANCES, check_parity, session_on_cpu
from genret_dask.exporters.quantise import quantise
from genret_dask.models.flops import Architecture
from genret_dask.models.manifest import MANIFEST, Manifest, Parity, hash_files, write_manifest
from genret_dask.models.pretrained import load_config, load_whole
from genret_dask.specs import Precision
from genret_dask.storage.places import PARTIAL, place_of, staged

logger = logging.getLogger(__name__)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_PACKAGES = ("onnx", "onnxruntime", "onnxruntime-gpu", "optimum-onnx", "torch", "transformers")


def load_checkpoint(
    model_class: Any,
    checkpoint: Path,
    model_type: str | None,
    check: Callable[[Any], list[str]],
) -> Any:
    """Load a local Hugging Face folder in float32, for evaluation.

    Parameters
    ----------
    model_class : type
        A transformers class with `from_pretrained`.
    model_type : str, optional
        What config.json must say.
    check : callable
        Returns what keeps a configuration from being exported.

    Raises
    ------
    ModelError
        The folder is missing or incomplete, or holds another family.
    """
    checkpoint = Path(checkpoint)
    expected = "a Hugging Face folder: config.json and weights as safetensors"
    if not (checkpoint / "config.json").is_file():
        raise ModelError(f"{checkpoint} has no config.json", expected=expected)
    config = load_config(str(checkpoint), local_files_only=True)
    if model_type is not None and config.model_type != model_type:
        raise ModelError(
            f"{checkpoint} holds a {config.model_type} model",
            expected=model_type,
            fix=f"export it as family {config.model_type}, or as optimum",
        )
    if problems := check(config):
        raise ModelError(f"{checkpoint}: {'; '.join(problems)}")
    model = load_whole(
        model_class,
        str(checkpoint),
        config=config,
        local_files_only=True,
        attn_implementation="eager",
    )
    return model.to(torch.float32).eval()


def count_parameters(model: Any) -> int:
    """Parameters other than the input-embedding matrix; a tensor that is shared counts once."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return total - model.get_input_embeddings().weight.numel()


def publish(
    folder: Path,
    *,
    checkpoint: Path,
    family: str,
    model: Any,
    architecture: Architecture,
    write: Callable[[Path], None],
    start_token: int,
    tolerance: float | None,
    precision: Precision,
    provenance: dict[str, Any] | None,
    graph: Literal["beam", "optimum"] = "beam",
) -> Manifest:
    """Write a model's files beside `folder`, check them against PyTorch, and move them there.

    Parameters
    ----------
    write : callable
        Puts the graphs into the folder that it is given: of `precision`, but float32 ones for
        int8, which are quantised here.

    Raises
    ------
    ModelError
        The start token is not a row of the model.
    ParityError
        The graphs disagree with PyTorch. `folder` stays as it was.
    """
    if not 0 <= start_token < architecture.vocab_size:
        raise ModelError(
            f"start token {start_token}",
            expected=f"a row of the vocabulary of {architecture.vocab_size}",
        )
    tolerance = TOLERANCES[precision] if tolerance is None else tolerance
    with staged(place_of(folder), MANIFEST) as staging:
        if precision == "int8":
            with tempfile.TemporaryDirectory(suffix=PARTIAL, dir=staging.parent) as source:
                write(Path(source))
                quantise(Path(source), staging)
        else:
            write(staging)
        for name in _TOKENIZER_FILES:
            if (Path(checkpoint) / name).is_file():
                shutil.copyfile(Path(checkpoint) / name, staging / name)
        unchecked = Parity(max_difference=float("inf"), tolerance=tolerance, compared=0)
        manifest = Manifest(
            family=family,
            graph=graph,
            precision=precision,
            n_params=count_parameters(model),
            start_token=start_token,
            vocab_size=architecture.vocab_size,
            architecture=architecture,
            files=hash_files(staging),
            parity=unchecked,
            provenance=provenance or {},
            versions=_versions(),
        )
        with session_on_cpu(staging, manifest) as session:
            parity = check_parity(session, model, tolerance=tolerance)
        manifest = manifest.model_copy(update={"parity": parity})
        write_manifest(staging, manifest)
    logger.info("exported %s to %s", family, folder)
    return manifest


def _versions() -> dict[str, str]:
    found = {"genret-dask": genret_dask.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
