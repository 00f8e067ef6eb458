"""One cell of the training grid, as a task for a worker; without torch, as plans need none."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genret_dask.errors import ModelError
from genret_dask.kinds.base import Kind
from genret_dask.specs import ModelSpec, TrainingSpec
from genret_dask.storage.artefacts import is_current, record_of
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.sources import weights_hash

_RECORD = {"n_params": int, "start_token": int}
_TRAINED = {**_RECORD, "n_train": int, "train_flops": float}


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
    collection, tokenizer, space, folder : Path
        Artefacts to read, `space` being the identifiers, and the checkpoint folder to write.
    pairs : Path or None
        The artefact of the training pairs of the user's files.
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
    collection: Path
    tokenizer: Path
    space: Path
    folder: Path
    made_from: Origin
    pairs: Path | None = None
    weights: str | None = None

    def check_weights(self) -> None:
        """Compare this host's copy of the pretrained weights with those the study was planned with.

        Raises
        ------
        ModelError
            It has other bytes.
        """
        source = self.model.source
        place = None if source is None else source.path or source.gguf
        if place is None or self.weights is None:
            return
        base = None if source is None else source.base
        if (found := weights_hash(place, base)) != self.weights:
            both = f"{place}" if base is None else f"{place}, or its base {base},"
            raise ModelError(
                f"{self.name}: {both} on {socket.gethostname()} holds other bytes ({found}) than "
                "where the study was started",
                expected=f"a copy of the same files ({self.weights}) on every host",
                fix="copy the weights again, or put them on a folder that all workers share",
            )


def finished(task: TrainTask) -> dict[str, Any] | None:
    """The record of a finished checkpoint made from this task's inputs, or None."""
    if not is_current(task.folder, task.made_from):
        return None
    needs = _TRAINED if task.model.checkpoint is None else _RECORD
    return record_of(task.folder, "training.json", needs)
