"""Models to train: size presets, explicit configs and pretrained weights of each family.

The vocabulary of a trained model is its tokeniser's rows, then one start row (the token that opens
an identifier), then the code rows, one block a level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from genret_dask.errors import ModelError, SpecError
from genret_dask.models.pretrained import load_config, load_tokenizer, load_weights
from genret_dask.specs import ModelSpec, PretrainedSpec


def _t5(d_model: int, d_ff: int, encoder: int, decoder: int, heads: int, d_kv: int) -> dict:
    return {
        "d_model": d_model,
        "d_ff": d_ff,
        "num_layers": encoder,
        "num_decoder_layers": decoder,
        "num_heads": heads,
        "d_kv": d_kv,
    }


def _llama(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> dict:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


PRESETS: dict[str, dict[str, dict[str, int]]] = {
    "t5": {
        "femto": _t5(32, 64, 1, 1, 2, 16),
        "pico": _t5(64, 128, 1, 1, 2, 32),
        "nano": _t5(80, 192, 2, 2, 4, 20),
        "micro": _t5(128, 384, 2, 2, 4, 32),
        "mini": _t5(256, 1024, 4, 4, 4, 64),
        "small": _t5(512, 2048, 6, 6, 8, 64),
        "base": _t5(768, 3072, 12, 12, 12, 64),
        "large": _t5(1024, 4096, 24, 24, 16, 64),
    },
    "llama": {
        "femto": _llama(32, 64, 2, 2, 2),
        "pico": _llama(64, 128, 2, 2, 2),
        "nano": _llama(80, 208, 3, 4, 4),
        "micro": _llama(128, 384, 3, 4, 4),
        "mini": _llama(256, 688, 6, 4, 4),
        "small": _llama(512, 1376, 14, 8, 8),
        "base": _llama(768, 2048, 24, 12, 12),
        "1b": _llama(2048, 5504, 22, 32, 4),
    },
}

_CLASSES: dict[str, tuple[Any, Any]] = {
    "t5": (T5Config, T5ForConditionalGeneration),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def build_model(
    spec: ModelSpec,
    tokenizer: PreTrainedTokenizerFast,
    code_rows: int,
    *,
    dropout: float,
    seed: int,
) -> tuple[PreTrainedModel, int]:
    """Make the model to train, in float32.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        The study's for models from scratch, that of the weights for pretrained ones.
    code_rows : int
        Vocabulary rows of the identifiers.

    Returns
    -------
    model, start_token
        Code rows begin at ``start_token + 1``.

    Raises
    ------
    SpecError
        The family or the preset is unknown, or the config has an unknown field.
    ModelError
        The pretrained weights are missing or belong to another family.
    """
    if spec.family not in _CLASSES:
        raise _unknown_family(spec)
    config_class, model_class = _CLASSES[spec.family]
    torch.manual_seed(seed)
    if spec.pretrained is not None:
        model = _pretrained(spec, spec.pretrained, model_class)
        start = len(tokenizer)
        model.resize_token_embeddings(start + 1 + code_rows)
    else:
        start = len(tokenizer)
        fields = _config_fields(spec, config_class, dropout)
        config = _make_config(
            spec,
            **{"tie_word_embeddings": True, "attention_bias": False, **fields}
            if spec.family == "llama"
            else fields,
            vocab_size=start + 1 + code_rows,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        model = model_class(config)
    model.config.decoder_start_token_id = start
    model.config.bos_token_id = start
    return model, start


def _config_fields(spec: ModelSpec, config_class: type, dropout: float) -> dict[str, Any]:
    if spec.size is not None:
        presets = PRESETS[spec.family]
        if spec.size not in presets:
            raise SpecError(
                f"model {spec.label}: {spec.family} has no size {spec.size!r}",
                expected=f"one of {', '.join(presets)}",
            )
        fields: dict[str, Any] = dict(presets[spec.size])
    else:
        fields = dict(spec.config or {})
        unknown = sorted(set(fields) - set(config_class().to_dict()))
        if unknown:
            raise SpecError(
                f"model {spec.label}: {config_class.__name__} has no field {', '.join(unknown)}",
                expected="fields of the transformers configuration class",
            )
    fields.setdefault("dropout_rate" if spec.family == "t5" else "attention_dropout", dropout)
    return fields


def _make_config(spec: ModelSpec, **fields: Any) -> Any:
    try:
        return _CLASSES[spec.family][0](**fields)
    except Exception as error:  # a configuration class checks its fields each in its own way
        raise SpecError(
            f"model {spec.label}: {type(error).__name__}: {str(error)[:200]}",
            expected="fields of the transformers configuration class, with values that it takes",
            fix=f"correct the config of {spec.label}",
        ) from error


def config_of(spec: ModelSpec) -> Any:
    """A model's configuration without its weights; its vocabulary is still that of the source."""
    if spec.family not in _CLASSES:
        raise _unknown_family(spec)
    if spec.pretrained is None:
        config_class = _CLASSES[spec.family][0]
        return _make_config(spec, **_config_fields(spec, config_class, dropout=0.0))
    return _pretrained_config(spec, spec.pretrained)


def _unknown_family(spec: ModelSpec) -> SpecError:
    return SpecError(
        f"model {spec.label}: family {spec.family!r} cannot be trained",
        expected=f"one of {', '.join(_CLASSES)}",
    )


def _source(spec: ModelSpec, source: PretrainedSpec) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes: a place, and options."""
    if source.hub is not None:
        return source.hub, {"revision": source.revision}
    if source.gguf is not None:
        place, exists = source.gguf, source.gguf.is_file()
        found: tuple[str, dict[str, Any]] = str(place.parent), {"gguf_file": place.name}
    else:
        place = source.path or Path()
        exists = (place / "config.json").is_file()
        found = str(place), {"local_files_only": True}
    if not exists:
        raise ModelError(
            f"model {spec.label}: no weights at {place}",
            expected="a Hugging Face folder with config.json, or a GGUF file",
        )
    return found


def _pretrained_config(spec: ModelSpec, source: PretrainedSpec) -> Any:
    """The configuration of pretrained weights, once they are known to be of the family."""
    where, options = _source(spec, source)
    config = load_config(where, **options)
    if config.model_type != spec.family:
        raise ModelError(
            f"model {spec.label}: {where} holds a {config.model_type}",
            expected=f"a {spec.family}",
        )
    return config


def _pretrained(spec: ModelSpec, source: PretrainedSpec, model_class: Any) -> PreTrainedModel:
    where, options = _source(spec, source)
    config = _pretrained_config(spec, source)
    model: PreTrainedModel = load_weights(
        model_class, where, config=config, torch_dtype=torch.float32, **options
    )
    return model


def pretrained_tokenizer(spec: ModelSpec, source: PretrainedSpec) -> PreTrainedTokenizerFast:
    """The tokeniser of pretrained weights, once they are known to be of the family."""
    _pretrained_config(spec, source)
    where, options = _source(spec, source)
    tokenizer: PreTrainedTokenizerFast = load_tokenizer(where, **options)
    return tokenizer


def count_parameters(model: Any) -> int:
    """Parameters other than the input-embedding matrix.

    As the study counts them: a head tied to the embeddings is left out with them, an untied head
    is counted.
    """
    embeddings = model.get_input_embeddings().weight
    return sum(p.numel() for p in model.parameters()) - embeddings.numel()
