"""From a model's entry in a study to its configuration: presets, explicit fields, weights.

Importing this needs neither torch nor transformers; only what is not a preset loads them.
"""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from genret_dask.errors import ModelError, SpecError
from genret_dask.models.pretrained import load_config, load_tokenizer
from genret_dask.specs import ModelSpec, PretrainedSpec
from genret_dask.specs.validation import Record, validate


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


Count = Annotated[int, Field(gt=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, lt=1)]


class T5Fields(Record):
    """What `config` may give of a `T5Config`; the vocabulary and its tokens are the study's."""

    d_model: Count = 512
    d_ff: Count = 2048
    d_kv: Count = 64
    num_layers: Count = 6
    num_decoder_layers: Count | None = None
    num_heads: Count = 8
    feed_forward_proj: str = "relu"
    relative_attention_num_buckets: Count = 32
    relative_attention_max_distance: Count = 128
    dropout_rate: Share = 0.0
    layer_norm_epsilon: PositiveFloat = 1e-6
    initializer_factor: PositiveFloat = 1.0
    tie_word_embeddings: bool = True


class LlamaFields(Record):
    """What `config` may give of a `LlamaConfig`; the vocabulary and its tokens are the study's."""

    hidden_size: Count = 4096
    intermediate_size: Count = 11008
    num_hidden_layers: Count = 32
    num_attention_heads: Count = 32
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: PositiveFloat = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    max_position_embeddings: Count = 2048
    attention_dropout: Share = 0.0
    rms_norm_eps: PositiveFloat = 1e-6
    initializer_range: PositiveFloat = 0.02
    tie_word_embeddings: bool = True


FIELDS: dict[str, type[Record]] = {"t5": T5Fields, "llama": LlamaFields}
_DROPOUT = {"t5": "dropout_rate", "llama": "attention_dropout"}
_DEFAULTS: dict[str, dict[str, Any]] = {"t5": {}, "llama": {"tie_word_embeddings": True}}
_FIX = "correct it; what it leaves out is transformers' default"


def _check_family(spec: ModelSpec) -> None:
    if spec.family not in PRESETS:
        raise SpecError(
            f"model {spec.label}: family {spec.family!r} cannot be trained",
            expected=f"one of {', '.join(PRESETS)}",
        )


def config_of(spec: ModelSpec, *, dropout: float = 0.0, **fields: Any) -> Any:
    """A model's configuration; without its weights, and of pretrained ones as their source has it.

    Parameters
    ----------
    dropout : float
        Unless the model's `config` has its own.
    **fields
        Of the vocabulary, for models from scratch.

    Raises
    ------
    SpecError
        The family or the preset is unknown, or `config` has an unknown field or a wrong value.
    ModelError
        The pretrained weights are not there, or of another family.
    """
    if spec.pretrained is not None:
        _check_family(spec)
        return _pretrained_config(spec, spec.pretrained)
    given = {**_given(spec), **fields}
    given.setdefault(_DROPOUT[spec.family], dropout)
    from transformers import LlamaConfig, T5Config

    config_class: Any = {"t5": T5Config, "llama": LlamaConfig}[spec.family]
    try:
        return config_class(**given)
    except Exception as error:  # a configuration class checks its fields each in its own way
        raise SpecError(
            f"model {spec.label}: {type(error).__name__}: {str(error)[:200]}",
            expected="values that the transformers configuration class takes",
            fix=_FIX,
        ) from error


def _given(spec: ModelSpec) -> dict[str, Any]:
    """The fields of a preset or of `config`, and what they leave to this package."""
    _check_family(spec)
    if spec.size is not None:
        presets = PRESETS[spec.family]
        if spec.size not in presets:
            raise SpecError(
                f"model {spec.label}: {spec.family} has no size {spec.size!r}",
                expected=f"one of {', '.join(presets)}",
            )
        return {**_DEFAULTS[spec.family], **presets[spec.size]}
    source = f"model {spec.label}: config"
    fields = validate(FIELDS[spec.family], spec.config, source=source, fix=_FIX)
    return {**_DEFAULTS[spec.family], **fields.model_dump(exclude_unset=True)}


def source_of(spec: ModelSpec, source: PretrainedSpec) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes: a place, and options.

    Raises
    ------
    ModelError
        There is no such folder or file.
    """
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
    where, options = source_of(spec, source)
    if source.gguf is not None:
        config = deepcopy(_gguf_config(where, source.gguf.name, source.gguf.stat().st_mtime_ns))
    else:
        config = load_config(where, **options)
    if config.model_type != spec.family:
        raise ModelError(
            f"model {spec.label}: {where} holds a {config.model_type}",
            expected=f"a {spec.family}",
        )
    return config


@lru_cache(maxsize=16)
def _gguf_config(folder: str, name: str, mtime: int) -> Any:
    """The configuration of a GGUF file; transformers reads all of its vocabulary for it."""
    return load_config(folder, gguf_file=name)


def pretrained_tokenizer(spec: ModelSpec, source: PretrainedSpec) -> Any:
    """The tokeniser of pretrained weights, once they are known to be of the family."""
    _pretrained_config(spec, source)
    where, options = source_of(spec, source)
    return load_tokenizer(where, **options)
