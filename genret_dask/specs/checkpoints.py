"""What the YAML need not say of a ready checkpoint, as its folder says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ADAPTER = "adapter_config.json"
"""The file by which a folder is an adapter of peft."""

TOKENISERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json")
"""One of them is in a folder with a tokeniser."""


def with_base(source: Any) -> Any:
    """Add the base that an adapter's configuration names, where that is a folder here."""
    if not isinstance(source, dict) or source.get("base") is not None:
        return source
    path = source.get("path")
    if not isinstance(path, str | Path) or not (Path(path) / ADAPTER).is_file():
        return source
    named = read_mapping(Path(path) / ADAPTER).get("base_model_name_or_path")
    if isinstance(named, str) and named and Path(named).is_dir():
        return {**source, "base": Path(named)}
    return source


def family_at(source: dict[str, Any]) -> str:
    """The family of a checkpoint: the model type of its config.json, or of its base's.

    Raises
    ------
    ValueError
        There is none.
    """
    folder = Path(source["path"])
    base = Path(source.get("base") or folder)
    if base == folder and (folder / ADAPTER).is_file():
        named = read_mapping(folder / ADAPTER).get("base_model_name_or_path")
        raise ValueError(
            f"checkpoint {folder} is an adapter of {named!r}, which is no folder here; give "
            f"checkpoint: {{path: {folder}, base: FOLDER}}"
        )
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = "has no config.json" if base.is_dir() else "is no folder"
        raise ValueError(f"checkpoint {base} {found}; give a folder of transformers") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"checkpoint {base} has a config.json that cannot be read: {str(error)[:200]}"
        ) from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise ValueError(
            f"checkpoint {base} has a config.json without a model_type; add it, or give the family"
        )
    return str(config["model_type"])


def read_mapping(path: Path) -> dict[str, Any]:
    """A file's mapping; empty where there is none to read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
