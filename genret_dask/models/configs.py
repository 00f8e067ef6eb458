"""From a model's entry in a study to its configuration: presets, explicit fields, weights.

Importing this needs neither torch nor transformers, and presets are known without them.
"""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from genret_dask.errors import ModelError, SpecError, meant
from genret_dask.models.adapters import load_merged, rows_of
from genret_dask.models.families import Family, exports_any, family_of
from genret_dask.models.pretrained import load_config, load_tokenizer, load_whole
from genret_dask.specs import ModelSpec, PretrainedSpec
from genret_dask.specs.registry import names_of
from genret_dask.specs.validation import validate

_FIX = "correct it; what it leaves out is transformers' default"


def trained_family(spec: ModelSpec) -> Family:
    """Return the family of a model of a study.

    Raises
    ------
    SpecError
        It is unknown, or has an exporter alone.
    """
    if exports_any(spec.family):
        raise SpecError(
            f"model {spec.label}: family {spec.family!r} has an exporter, and cannot be trained",
            expected=f"one of {', '.join(names_of('families'))}",
            fix="genret_dask.exporters.export_model exports a checkpoint",
        )
    try:
        return family_of(spec.family)
    except SpecError as error:
        found = f"model {spec.label}: {error.found}"
        raise SpecError(found, expected=error.expected, fix=error.fix) from error


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
    family = trained_family(spec)
    if spec.source is not None:
        return _pretrained_config(spec, spec.source)
    given = {**family.defaults, **_given(spec, family), **fields}
    if family.dropout is not None:
        given.setdefault(family.dropout, dropout)
    try:
        return family.load_config_class()(**given)
    except Exception as error:  # a configuration class checks its fields each in its own way
        raise SpecError(
            f"model {spec.label}: {type(error).__name__}: {str(error)[:200]}",
            expected="values that the transformers configuration class takes",
            fix=_FIX,
        ) from error


def _given(spec: ModelSpec, family: Family) -> dict[str, Any]:
    """The fields of a preset or of `config`."""
    if spec.size is None:
        source = f"model {spec.label}: config"
        fields = validate(family.fields, spec.config, source=source, fix=_FIX)
        return dict(fields.model_dump(exclude_unset=True))
    if spec.size not in family.presets:
        raise SpecError(
            f"model {spec.label}: {spec.family} has no size {spec.size!r}"
            + meant(spec.size, family.presets),
            expected=f"one of {', '.join(family.presets)}" if family.presets else "config",
        )
    return family.presets[spec.size]


def source_of(spec: ModelSpec, source: PretrainedSpec) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes: a place, and options; of an adapter, its base's.

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
        place = source.base or source.path or Path()
        exists = (place / "config.json").is_file()
        found = str(place), {"local_files_only": True}
    if not exists:
        raise ModelError(
            f"model {spec.label}: no weights at {place}",
            expected="a Hugging Face folder with config.json, or a GGUF file",
        )
    return found


def _pretrained_config(spec: ModelSpec, source: PretrainedSpec) -> Any:
    """The configuration of pretrained weights; of an adapter, with its vocabulary."""
    config = base_config(spec, source)
    if source.base is not None and source.path is not None:
        config.vocab_size = rows_of(source.path) or config.vocab_size
    return config


def base_config(spec: ModelSpec, source: PretrainedSpec) -> Any:
    """The configuration of pretrained weights, or of an adapter's base, as its files have it.

    Raises
    ------
    ModelError
        They are not there, or of another family.
    """
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
    config = _pretrained_config(spec, source)
    where, options = source_of(spec, source)
    if source.base is not None:  # an adapter's folder has no configuration to read the class from
        where, options = str(source.tokenizer_place), {**options, "config": config}
    return load_tokenizer(where, **options)


def load_source(spec: ModelSpec, source: PretrainedSpec, config: Any, torch_dtype: Any) -> Any:
    """The model of pretrained weights; of an adapter, merged into its base, in float32.

    Raises
    ------
    ModelError
        It cannot be loaded, or is not whole, or cannot be merged.
    """
    where, options = source_of(spec, source)
    family = family_of(spec.family)
    if source.base is not None and source.path is not None:
        own = base_config(spec, source)
        return load_merged(family, source.path, where, config=own, **options)
    build = family.load_model_class()
    return load_whole(build, where, config=config, torch_dtype=torch_dtype, **options)
