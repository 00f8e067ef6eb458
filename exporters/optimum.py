"""Any causal family that Hugging Face `optimum` can export, as one graph with a past.

The prompt's state is copied for every beam, so a search is slower than on beam-native graphs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from genret_dask.errors import ModelError
from genret_dask.exporters.base import Checkpoint, Exporter
from genret_dask.models.families.generic import measured
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
                "families t5, mt5, bart and mbart have exporters of their own"
            ]
        if (cap := getattr(config, "attn_logit_softcapping", None)) is not None:
            return [
                f"attn_logit_softcapping is {cap}; expected none: optimum's graphs leave it out"
            ]
        return []

    def architecture(self, model: Any) -> Architecture:
        """See `Exporter`; of a causal model of any family."""
        return measured(model)

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
