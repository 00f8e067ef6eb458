"""Bring a ready checkpoint into a run: nothing is trained, and nothing of it is changed.

It lies then as a trained one does, whether it came as a folder, from the hub or as a GGUF file; an
adapter lies there merged into its base.
"""

from __future__ import annotations

from typing import Any

from genret_dask.models.architectures import count_parameters
from genret_dask.models.configs import config_of, load_source
from genret_dask.models.families import family_of
from genret_dask.models.pretrained import load_tokenizer
from genret_dask.models.torch_state import alone_in_torch
from genret_dask.storage.artefacts import fetched, publishing
from genret_dask.storage.records import dump_record
from genret_dask.training.task import TrainTask, finished


def bring(task: TrainTask) -> dict[str, Any]:
    """Publish a ready checkpoint as a Hugging Face folder, in the number format of its source.

    A merged adapter is in float32.

    Returns
    -------
    dict
        What `training.json` holds: how the model reads and opens an identifier, n_params, and
        n_train and train_flops, which may be unknown.

    Raises
    ------
    ModelError
        It cannot be loaded, or is of another family.
    """
    if (record := finished(task)) is not None:  # a twin of this task may have been first
        return record
    task.check_weights()
    spec = task.model
    if spec.checkpoint is None:
        raise ValueError(f"{task.name} is to be trained")
    family, config = family_of(spec.family), config_of(spec)
    tokenizer = load_tokenizer(str(fetched(task.tokenizer)), local_files_only=True)
    reader, start = family.opening(config, tokenizer, task.max_tokens, spec.prompt)
    with alone_in_torch(threads=1):
        model = load_source(spec, spec.checkpoint, config, "auto")
        record = {
            "name": task.name,
            "family": spec.family,
            "n_params": count_parameters(model),
            "n_train": spec.n_train,
            "train_fraction": 1.0,
            "train_flops": spec.train_flops,
            "examples": 0,
            "start_token": start,
            "max_tokens": task.max_tokens,
            "texts_cut": 0,
            "begin_tokens": list(reader.opening),
            "end_tokens": list(reader.closing),
            "lead": reader.lead,
            "eos_token": tokenizer.eos_token_id,
            "dev_loss": None,
            "seconds": 0.0,
        }
        with publishing(task.folder, task.made_from) as partial:
            model.save_pretrained(str(partial), safe_serialization=True)
            tokenizer.save_pretrained(str(partial))
            (partial / "training.json").write_bytes(dump_record(record))
    return record
