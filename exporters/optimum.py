"""Any causal family that Hugging Face `optimum` can export, as one graph with a past.

The prompt's state is copied for every beam, so a search is slower than on beam-native graphs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from genret_dask.errors import ModelError
from genret_dask.exporters.base import Checkpoint, Exporter
from genret_dask.models.flops import Architecture


class OptimumExporter(Exporter):
    """Exports causal language models of any family that optimum knows."""

    graph = "optimum"
    precisions = ("fp32", "int8")

    def check(self, config: Any) -> list[str]:
        """See `Exporter`."""
        if config.is_encoder_decoder:
            return [
                f"an encoder-decoder ({config.model_type}); expected a causal language model, "
                "family t5 exports T5"
            ]
        return []

    def architecture(self, model: Any) -> Architecture:
        """Return a causal model's sizes, by its configuration and the shapes of its weights."""
        config = model.config
        d_model, layers = config.hidden_size, config.num_hidden_layers
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        d_head = getattr(config, "head_dim", None) or d_model // heads
        names = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
        d_ff = next(filter(None, (getattr(config, name, None) for name in names)), 4 * d_model)
        outside = {
            id(model.get_input_embeddings().weight),
            id(model.get_output_embeddings().weight),
        }
        matrices = sum(
            p.numel() for p in model.parameters() if p.ndim == 2 and id(p) not in outside
        )
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

    def write(self, checkpoint: Checkpoint, folder: Path) -> None:
        """See `Exporter`."""
        try:
            from optimum.exporters.onnx import main_export
        except ImportError as error:
            raise ModelError(
                "the optimum exporter needs the package optimum-onnx",
                fix="pip install 'genret-dask[cpu]' or 'genret-dask[gpu]'",
            ) from error
        try:
            main_export(
                str(checkpoint.folder),
                output=folder,
                task="text-generation-with-past",
                device="cpu",
                trust_remote_code=False,
                local_files_only=True,
                do_validation=False,
            )
        except (KeyError, ValueError, RuntimeError, OSError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(f"optimum does not export {checkpoint.folder}: {reason}") from error
        if not (folder / "model.onnx").is_file():
            raise ModelError(
                f"optimum wrote {', '.join(sorted(path.name for path in folder.iterdir()))}",
                expected="model.onnx",
            )
        onnx.checker.check_model(str(folder / "model.onnx"))
