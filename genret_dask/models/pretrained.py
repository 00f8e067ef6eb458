"""Hugging Face folders, hub ids and GGUF files, read as data: no code of theirs is run.

Without a word on `trust_remote_code` transformers would ask at the terminal whether to run it. And
a configuration may name an attention kernel of the hub, which is code as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from genret_dask.errors import GenretError, ModelError

EXPECTED = "a model of transformers itself, as safetensors or GGUF, with its tokeniser"


def load_config(where: str, **options: Any) -> Any:
    """The configuration at a place, by `AutoConfig`.

    Raises
    ------
    ModelError
        It cannot be read, or needs code of its own.
    """
    from transformers import AutoConfig

    with reading(where, options):
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **options)
        attention = getattr(config, "_attn_implementation", None)
    if attention is not None and "/" in str(attention):
        raise ModelError(
            f"{where}: config.json names the attention kernel {attention!r}, which is code",
            expected=EXPECTED,
            fix="remove _attn_implementation from config.json",
        )
    return config


def load_tokenizer(where: str, **options: Any) -> Any:
    """The tokeniser at a place, by `AutoTokenizer`, with a padding token.

    Raises
    ------
    ModelError
        It cannot be read, or needs code of its own.
    """
    from transformers import AutoTokenizer

    with reading(where, options):
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_weights(model_class: Any, where: str, *, config: Any, **options: Any) -> Any:
    """A model at a place, from safetensors, or from the GGUF file that `options` names.

    Parameters
    ----------
    model_class : type
        A transformers class with `from_pretrained`.
    config
        What `load_config` found.

    Raises
    ------
    ModelError
        The weights cannot be read; pickled ones (``pytorch_model.bin``) are not.
    """
    safe = {} if "gguf_file" in options else {"use_safetensors": True}
    with reading(where, options):
        return model_class.from_pretrained(
            where, config=config, trust_remote_code=False, **safe, **options
        )


def load_whole(model_class: Any, where: str, **options: Any) -> Any:
    """A model at a place, all of whose weights are there; see `load_weights`.

    Raises
    ------
    ModelError
        Weights are missing, which transformers would draw at random.
    """
    model, report = load_weights(model_class, where, output_loading_info=True, **options)
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{where} lacks {len(missing)} weights, {missing[0]} the first",
            expected=f"all weights of a {model_class.__name__}",
        )
    return model


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every weight in a folder's safetensors, of which only the headers are read.

    Raises
    ------
    ModelError
        There are none, or a file is missing or cut off.
    """
    index = folder / "model.safetensors.index.json"
    with reading(str(folder)):
        names = ["model.safetensors"]
        if index.is_file():
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(shards.values()))
        missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} has no {missing[0]}", expected=EXPECTED)
    return {key: shape for name in names for key, shape in tensor_shapes(folder / name).items()}


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a safetensors file, of which only the header is read.

    Raises
    ------
    ModelError
        It is missing or cut off.
    """
    from safetensors import safe_open

    with reading(str(path)), safe_open(path, framework="np") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


@contextmanager
def reading(where: str, options: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Turn whatever a parser raises at a file into a `ModelError` that names it."""
    name = str(Path(where) / options["gguf_file"]) if "gguf_file" in options else where
    try:
        yield
    except GenretError:
        raise
    except Exception as error:
        # Parsers of dozens of formats raise whatever they please at a file that is not theirs.
        reason = next(iter(str(error).strip().splitlines()), "")[:300]
        raise ModelError(
            f"cannot load {name}: {type(error).__name__}: {reason}", expected=EXPECTED
        ) from error
