"""Adapters of peft: read as data, held against their base, and merged into it.

Importing this needs neither torch nor peft, and what an adapter's configuration and the headers of
its weights say is known without them.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genret_dask.errors import ModelError, listed
from genret_dask.models.families import Family
from genret_dask.models.pretrained import load_whole, reading, tensor_shapes
from genret_dask.specs.checkpoints import ADAPTER

_WEIGHTS = "adapter_model.safetensors"
_WHOLE = ("model.safetensors", "model.safetensors.index.json")
_KINDS = ("LORA", "LOHA", "LOKR", "IA3")
"""What peft merges into the weights of any model; a prompt that is learnt is no change of them."""

_UNMERGED = ("alora_invocation_tokens", "arrow_config", "layer_replication", "megatron_config")
"""Settings of LoRA under which the merged model is another, or that name code to import."""

_ROWS = re.compile(
    r"\.(embed_tokens|shared|lm_head)\.((base_layer|modules_to_save|original_module)\.)?weight$"
)
"""Names of tensors that have a row for each token of the vocabulary: the embeddings, the head."""

_TOLERANCE = 1e-3
"""Of the logits' largest: merging rounds anew, and by far less than that."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / ADAPTER).is_file()


def check_adapter(folder: Path, base: Path | None) -> None:
    """Refuse an adapter that could not be merged, by its configuration and its files' names.

    Parameters
    ----------
    folder : path
        Of a model, where it is no adapter and has no base.

    Raises
    ------
    ModelError
        Its base is not there, it is of another kind, or pickled, or peft is not installed.
    """
    if not is_adapter(folder):
        if base is None:
            return
        raise ModelError(
            f"{folder} has no {ADAPTER}, and base is of an adapter",
            expected="an adapter as peft's save_pretrained writes it",
        )
    settings = _settings(folder)
    if base is None or not (base / "config.json").is_file() or is_adapter(base):
        named = settings.get("base_model_name_or_path") if base is None else str(base)
        raise ModelError(
            f"{folder} is an adapter of {named!r}, which is no folder of a whole model here",
            expected="a folder with config.json and model.safetensors",
            fix=f"give checkpoint: {{path: {folder}, base: FOLDER}}",
        )
    kind = settings.get("peft_type")
    if kind not in _KINDS:
        raise ModelError(
            f"{folder} is an adapter of kind {kind}, which is not merged",
            expected=f"one of {', '.join(_KINDS)}",
        )
    if asked := [name for name in _UNMERGED if settings.get(name)]:
        raise ModelError(
            f"{folder} is an adapter with {', '.join(asked)}, which is not merged",
            expected=f"{ADAPTER} without it",
        )
    if not (folder / _WEIGHTS).is_file():
        pickled = " (adapter_model.bin is pickled, and not read)"
        there = (folder / "adapter_model.bin").is_file()
        raise ModelError(
            f"{folder} has no {_WEIGHTS}{pickled if there else ''}",
            expected="an adapter as peft's save_pretrained writes it",
        )
    if whole := [name for name in _WHOLE if (folder / name).is_file()]:
        raise ModelError(
            f"{folder} holds {whole[0]} beside {ADAPTER}",
            expected="a model or an adapter",
            fix=f"move the other elsewhere; of a model that is merged already, remove {ADAPTER}",
        )
    if find_spec("peft") is None:
        raise ModelError(
            f"{folder} is an adapter, and the package peft is not installed",
            expected="peft on this machine and on every worker",
            fix="pip install 'genret-dask[lora]'",
        )


def _settings(folder: Path) -> dict[str, Any]:
    with reading(str(folder / ADAPTER)):
        found = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ModelError(f"{folder / ADAPTER} holds a {type(found).__name__}", expected="a mapping")
    return found


def rows_of(folder: Path) -> int | None:
    """Rows of the vocabulary that an adapter was trained with; None where it does not say.

    Raises
    ------
    ModelError
        The weights cannot be read.
    """
    shapes = tensor_shapes(folder / _WEIGHTS)
    return next((shape[0] for name, shape in shapes.items() if shape and _ROWS.search(name)), None)


def misfits(folder: Path, empty: Any, *, resized: bool) -> Iterator[str]:
    """What of an adapter does not fit a model; a line, or none.

    Parameters
    ----------
    empty : PreTrainedModel
        The base without memory, on torch's "meta" device, with the adapter's vocabulary; it is
        changed.
    resized : bool
        Whether that vocabulary is another than the base's.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    found = tensor_shapes(folder / _WEIGHTS)
    rows = {match[1] for match in map(_ROWS.search, found) if match}
    if resized and not empty.config.tie_word_embeddings and len(rows) < 2:
        yield (
            f"the adapter {folder} has another vocabulary than its base, and weights of it for "
            f"{listed(sorted(rows))} alone; expected those of the embeddings and of the head"
        )
        return
    try:
        config = _peft_config(folder)
        if config.peft_type == "LORA":
            config.init_lora_weights = False  # others look at the base's weights
        with torch.device("meta"), _quiet():
            adapted = PeftModel(empty, config, low_cpu_mem_usage=True)
            needed, allowed = (
                get_peft_model_state_dict(adapted, save_embedding_layers=one)
                for one in (False, True)
            )
    except Exception as error:  # peft raises whatever it pleases where modules are not there
        yield f"the adapter {folder} does not fit its base: {' '.join(str(error).split())[:300]}"
        return
    allowed = {**allowed, **needed}
    if missing := sorted({*needed} - {*found}):
        yield f"the adapter {folder} lacks {len(missing)} weights: {listed(missing)}"
    elif unknown := sorted({*found} - {*allowed}):
        yield (
            f"the adapter {folder} has {len(unknown)} weights of which its base has no modules: "
            f"{listed(unknown)}"
        )
    else:
        for name, shape in found.items():
            if shape != (wanted := tuple(allowed[name].shape)):
                yield (
                    f"the adapter {folder} does not fit its base: {name} is {list(shape)}, "
                    f"expected {list(wanted)}"
                )
                return


def load_merged(family: Family, folder: Path, where: str, **options: Any) -> Any:
    """Load a base in float32, as small changes are lost in 16 bits, and merge an adapter into it.

    Embeddings and head, which the base may tie, are untied where the adapter tells them apart.

    Parameters
    ----------
    where, **options
        The base, as `load_whole` takes it.

    Raises
    ------
    ModelError
        The merged model gives other logits than the base with its adapter.
    """
    import torch
    from peft import PeftModel

    model = load_whole(family.load_model_class(), where, torch_dtype=torch.float32, **options)
    tied, rows = model.config.tie_word_embeddings, rows_of(folder)
    if rows is not None and rows != model.config.vocab_size:
        model.resize_token_embeddings(rows, mean_resizing=False)
    with _quiet(), torch.no_grad(), reading(str(folder)):
        adapted = PeftModel.from_pretrained(
            model, str(folder), config=_peft_config(folder), torch_device="cpu"
        ).eval()
        wanted = _logits(adapted.get_base_model())
        _split(adapted)
        model = adapted.merge_and_unload()
        model.config.tie_word_embeddings = tied
        embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        if tied and torch.allclose(embeddings, head):
            model.tie_weights()
        elif tied:
            family.untie(model)
        found = _logits(model)
    model.requires_grad_(True)  # the adapter had frozen the base
    apart = float((found - wanted).abs().max())
    if not apart <= _TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise ModelError(
            f"{folder} cannot be merged into {where}: logits differ by {apart:.3g}",
            expected="an adapter whose layers the base uses as they are named",
        )
    return model


def _peft_config(folder: Path) -> Any:
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(str(folder))
    config.task_type = None  # a task adds modules of its own
    return config


def _split(model: Any) -> None:
    """Give every module weights of its own: merging changes them in place, for all that share."""
    from torch.nn import Parameter

    seen: set[int] = set()
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in seen:
                setattr(module, name, Parameter(weight.detach().clone(), requires_grad=False))
            seen.add(id(weight))


def _logits(model: Any) -> Any:
    """Of tokens from all over the vocabulary, four texts of sixteen."""
    import torch

    tokens = torch.linspace(0, model.config.vocab_size - 1, 64).long().reshape(4, 16)
    given = {"input_ids": tokens}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = tokens.flip(0)
    return model(**given).logits


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what peft warns of: tied weights, and embeddings that are saved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
