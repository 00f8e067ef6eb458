"""The study of a finished run's models: what its YAML leaves out is that run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genret_dask.errors import SpecError

SECTIONS = ("seed", "identifiers", "tokenizer", "max_tokens", "training", "models", "export")
"""What models are made by: it cannot be changed."""

_RECORD = "spec.json"


def with_models_of(content: dict[str, Any], source: str) -> dict[str, Any]:
    """Add what the run has that `models_from` names: its models, and what else is not given.

    Of `inference` and `fits` single keys are added.

    Parameters
    ----------
    content : dict
        Of a study's YAML, with the key `models_from`.
    source : str
        The file that an error names.

    Raises
    ------
    SpecError
        There is no such run, the study has settings of how its models are made, or it has no name
        of its own.
    """
    run = Path(str(content["models_from"]))
    try:
        theirs: dict[str, Any] = json.loads((run / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"{source}: models_from: {run} has no {_RECORD} that can be read",
            expected="the directory of a finished run, as runs/NAME, on this machine",
        ) from error
    if given := [name for name in SECTIONS if name in content]:
        raise SpecError(
            f"{source} has {', '.join(given)} beside models_from, which takes them from {run}",
            expected="dataset, inference, baselines, fits, name",
            fix="leave them out",
        )
    if content.get("name", theirs.get("name")) == theirs.get("name"):
        raise SpecError(
            f"{source} gives the run no name of its own beside that of {run}",
            expected="a name that differs",
            fix="add name: ..., or --name",
        )
    merged = {**theirs, **content}
    for section in ("inference", "fits"):
        if isinstance(content.get(section), dict):
            merged[section] = {**theirs.get(section, {}), **content[section]}
    return merged
