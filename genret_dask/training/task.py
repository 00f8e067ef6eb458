"""One cell of the training grid, as a task for a worker; without torch, as plans need none."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genret_dask.datasets.pairs import Pairs, read_pairs
from genret_dask.errors import ModelError
from genret_dask.kinds.base import Kind
from genret_dask.specs import ModelSpec, TrainingSpec
from genret_dask.storage.arrays import read_array
from genret_dask.storage.artefacts import fetched, is_current, record_of
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.sources import model_hash

_RECORD = {"n_params": int, "n_train": int, "train_flops": float, "start_token": int}


@dataclass(frozen=True)
class TrainTask:
    """One cell of the training grid, with all that a worker needs to train it.

    Attributes
    ----------
    name : str
        Unique in the run; names the checkpoint's folder.
    max_tokens : int
        Kept of each text.
    identifiers : Kind
    pairs, tokenizer, space, folder : Path
        Artefacts to read, `space` being the identifiers, and the checkpoint folder to write.
    spans : Path or None
        Where a document has many identifiers: those that stand for each pair's.
    weights : str or None
        Fingerprint of the bytes of the pretrained weights, where they are files.
    made_from : Origin
        Every input and setting; a checkpoint that carries it is done.
    """

    name: str
    model: ModelSpec
    fraction: float
    training: TrainingSpec
    seed: int
    max_tokens: int
    identifiers: Kind
    pairs: Path
    tokenizer: Path
    space: Path
    folder: Path
    made_from: Origin
    spans: Path | None = None
    weights: str | None = None

    def check_weights(self) -> None:
        """Compare this host's copy of the pretrained weights with those the study was planned with.

        Raises
        ------
        ModelError
            It has other bytes.
        """
        source = self.model.pretrained
        place = None if source is None else source.path or source.gguf
        if place is None or self.weights is None:
            return
        if (found := model_hash(place)) != self.weights:
            raise ModelError(
                f"{self.name}: {place} on {socket.gethostname()} holds other bytes ({found}) than "
                "where the study was started",
                expected=f"a copy of the same files ({self.weights}) on every host",
                fix="copy the weights again, or put them on a folder that all workers share",
            )

    def read_pairs(self, name: str) -> Pairs:
        """Read the pairs of a file, with their spans where a document has many identifiers."""
        pairs = read_pairs(fetched(self.pairs) / f"{name}.jsonl.gz")
        if self.spans is None:
            return pairs
        spans = read_array(fetched(self.spans) / f"{name}.npy", mapped=False, dims=3)
        pairs = replace(pairs, spans=spans)
        return pairs.take(np.flatnonzero(pairs.spans[:, 0, 0] >= 0))  # others have no identifier


def finished(task: TrainTask) -> dict[str, Any] | None:
    """The record of a finished checkpoint made from this task's inputs, or None."""
    if not is_current(task.folder, task.made_from):
        return None
    return record_of(task.folder, "training.json", _RECORD)
