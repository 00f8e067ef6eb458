"""A series of ready checkpoints: an entry of `models` with `checkpoints`, which is a model each."""

from __future__ import annotations

import math
import re
from glob import glob
from pathlib import Path
from typing import Any

from genret_dask.errors import listed
from genret_dask.specs.checkpoints import ADAPTER, read_mapping

_MARKS = ("config.json", ADAPTER)


def expanded(models: Any) -> Any:
    """Put a model for each folder in the place of every entry with `checkpoints`.

    Raises
    ------
    ValueError
        The pattern matches no folder, or one that holds no checkpoint, or the entry has no name.
    """
    if not isinstance(models, list | tuple):
        return models
    found: list[Any] = []
    for model in models:
        found += _members(model) if isinstance(model, dict) and "checkpoints" in model else [model]
    return tuple(found)


def _members(entry: dict[str, Any]) -> list[dict[str, Any]]:
    shared = {name: value for name, value in entry.items() if name != "checkpoints"}
    given = entry["checkpoints"]
    source = dict(given) if isinstance(given, dict) else {"path": given}
    pattern, name = source.get("path"), shared.get("name")
    if not isinstance(pattern, str | Path) or not str(pattern):
        raise ValueError(f"checkpoints is {given!r}; give a pattern of folders, as runs/*/step-*")
    if not isinstance(name, str) or "checkpoint" in shared:
        raise ValueError(
            f"the models of checkpoints {pattern} are named after name, and have no checkpoint; "
            "give the one, and leave out the other"
        )
    folders = _folders(str(pattern))
    return [
        {
            **_flops(folder),
            **shared,
            "name": f"{name}-{label}",
            "checkpoint": {**source, "path": folder},
        }
        for folder, label in zip(folders, _labels(folders), strict=True)
    ]


def _folders(pattern: str) -> list[Path]:
    """The folders that a pattern matches, in natural order."""
    found = sorted(map(Path, glob(pattern, recursive=True)), key=_natural)
    folders = [path for path in found if path.is_dir()]
    if not folders:
        files = f"only files: {listed([str(path) for path in found])}" if found else "nothing"
        raise ValueError(
            f"checkpoints {pattern} matches {files} from {Path.cwd()}; give a pattern of folders"
        )
    empty = [path for path in folders if not any((path / mark).is_file() for mark in _MARKS)]
    if empty:
        held = sorted(path.name for path in empty[0].iterdir())
        raise ValueError(
            f"checkpoints {pattern} matches {len(empty)} folders without {' or '.join(_MARKS)}: "
            f"{listed([str(path) for path in empty])}; {empty[0]} holds {listed(held) or 'nothing'}"
        )
    return folders


def _natural(path: Path) -> list[tuple[int, str]]:
    """What orders step-9 before step-10."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(one), "") if one.isdecimal() else (-1, one) for one in pieces]


def _labels(folders: list[Path]) -> list[str]:
    """What differs between the paths; of one alone, its folder's name."""
    parts = [folder.parts for folder in folders]
    depth = min(map(len, parts))
    same = [len({one[place] for one in parts}) == 1 for place in range(depth)]
    kept = [[one for place, one in enumerate(path) if place >= depth or not same[place]]
            for path in parts]  # fmt: skip
    named = ["-".join(one) or path.name for one, path in zip(kept, folders, strict=True)]
    return [re.sub(r"[^A-Za-z0-9._-]+", "-", one) for one in named]


def _flops(folder: Path) -> dict[str, float]:
    """The operations that the trainer of transformers counted, where it did."""
    found = read_mapping(folder / "trainer_state.json").get("total_flos")
    if isinstance(found, bool) or not isinstance(found, int | float):
        return {}
    return {"train_flops": float(found)} if found > 0 and math.isfinite(found) else {}
