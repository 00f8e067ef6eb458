"""What judges a search of models: every identifier scored by the checkpoint in torch."""

from __future__ import annotations

import numpy as np
import torch

from genret_dask.models.families import family_of
from genret_dask.models.manifest import read_manifest
from genret_dask.models.reader import Reader
from genret_dask.storage.layout import RunLayout


def torch_scores(
    layout: RunLayout, label: str, model: str, paths: np.ndarray, base: np.ndarray, query: str
) -> np.ndarray:
    """Log-probabilities of identifiers, float[identifiers].

    Parameters
    ----------
    paths : int64[identifiers, steps]
        Tokens within their blocks, -1 behind the last.
    base : int64[steps]
        The vocabulary row at which each block begins.
    """
    folder = layout.model(label, model)
    manifest = read_manifest(folder)
    family = family_of(manifest.family)
    hf = family.load_model_class().from_pretrained(layout.checkpoint(label, model)).float().eval()
    hf.config.decoder_start_token_id = manifest.start_token
    reader = Reader.of_model(folder / "tokenizer.json", manifest.require_reading(), 32)
    tokens, lengths = reader.read([query]).padded(np.array([0]))
    labels = np.where(paths < 0, -100, paths + base)
    with torch.inference_mode():
        logits = family.logits(
            hf,
            torch.from_numpy(np.repeat(tokens, len(labels), axis=0)),
            torch.from_numpy(np.repeat(lengths, len(labels))),
            torch.from_numpy(labels),
        ).log_softmax(-1)
    found = np.take_along_axis(logits.numpy(), np.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return np.where(labels < 0, 0, found).sum(axis=1)
