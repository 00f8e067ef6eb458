"""Any causal family that Hugging Face `optimum` can export, as one graph with a past.

The prompt's state is copied for every beam, so a search is slower than on beam-native graphs.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnx
from transformers import AutoModelForCausalLM

from genret_dask.errors import ModelError
from genret_dask.exporters.publish import load_checkpoint, publish
from genret_dask.models.flops import Architecture
from genret_dask.models.manifest import Manifest
from genret_dask.specs import Precision

logger = logging.getLogger(__name__)


def export(
    checkpoint: Path,
    folder: Path,
    *,
    start_token: int,
    tolerance: float | None = None,
    precision: Precision = "fp32",
    provenance: dict[str, Any] | None = None,
) -> Manifest:
    """Export a causal language model of any family that optimum knows.

    Parameters
    ----------
    checkpoint : Path
        A Hugging Face folder: config.json and safetensors. Its code is never run.
    folder : Path
        Where the exported model goes; replaced when there.
    start_token : int
        The token between a query and its identifier.
    tolerance : float, optional
        Largest accepted |difference| in log-probability against PyTorch; by default the one that
        `genret_dask.exporters.parity.TOLERANCES` has for the precision.
    precision : {"fp32", "int8"}
        int8: see `genret_dask.exporters.quantise`.
    provenance : dict, optional
        Kept in the manifest as it is.

    Raises
    ------
    ModelError
        optimum is not installed or does not export this family or precision, or the checkpoint is
        incomplete.
    ParityError
        The graph disagrees with PyTorch; nothing is published.
    """
    if precision not in ("fp32", "int8"):
        raise ModelError(
            f"family optimum does not export in {precision}",
            expected="fp32 or int8",
            fix="families t5 and llama export in 16 bits",
        )
    model = load_checkpoint(AutoModelForCausalLM, checkpoint, None, check)
    return publish(
        folder,
        checkpoint=checkpoint,
        family=model.config.model_type,
        model=model,
        architecture=describe(model),
        write=lambda staging: _write(Path(checkpoint), staging),
        start_token=start_token,
        tolerance=tolerance,
        precision=precision,
        provenance=provenance,
        graph="optimum",
    )


def check(config: Any) -> list[str]:
    """What keeps a configuration from being exported, a line each."""
    if config.is_encoder_decoder:
        return [
            f"an encoder-decoder ({config.model_type}); expected a causal language model, "
            "family t5 exports T5"
        ]
    return []


def describe(model: Any) -> Architecture:
    """A causal model's sizes, from its configuration and the shapes of its weights."""
    config = model.config
    d_model, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    d_head = getattr(config, "head_dim", None) or d_model // heads
    d_ff = next(
        (
            size
            for name in ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
            if (size := getattr(config, name, None))
        ),
        4 * d_model,
    )
    outside = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2 and id(p) not in outside)
    attention = d_model * d_head * 2 * (heads + kv_heads)
    gated = matrices / layers - attention > 2.5 * d_model * d_ff
    return Architecture(
        kind="decoder",
        d_model=d_model,
        heads=heads,
        kv_heads=kv_heads,
        d_head=d_head,
        d_ff=d_ff,
        gated=gated,
        encoder_layers=0,
        decoder_layers=layers,
        vocab_size=model.get_output_embeddings().weight.shape[0],
    )


def _write(checkpoint: Path, staging: Path) -> None:
    try:
        from optimum.exporters.onnx import main_export
    except ImportError as error:
        raise ModelError(
            "the optimum exporter needs the package optimum-onnx",
            fix="pip install 'genret-dask[cpu]' or 'genret-dask[gpu]'",
        ) from error
    try:
        main_export(
            str(checkpoint),
            output=staging,
            task="text-generation-with-past",
            device="cpu",
            trust_remote_code=False,
            local_files_only=True,
            do_validation=False,
        )
    except (KeyError, ValueError, RuntimeError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"optimum does not export {checkpoint}: {reason}") from error
    if not (staging / "model.onnx").is_file():
        raise ModelError(
            f"optimum wrote {', '.join(sorted(path.name for path in staging.iterdir()))}",
            expected="model.onnx",
        )
    onnx.checker.check_model(str(staging / "model.onnx"))
