"""What a run's identifiers are like, as the page shows it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from genret_dask.errors import GenretError
from genret_dask.kinds.diagnosing import diagnose
from genret_dask.report.gather import Gathered
from genret_dask.report.text import clean, decimal
from genret_dask.specs import SweepSpec
from genret_dask.specs.validation import validate
from genret_dask.storage.places import is_local

logger = logging.getLogger(__name__)

_COLUMNS = {
    "level": "level",
    "cells": "cells",
    "dead": "dead",
    "entropy": "entropy, bits",
    "entropy_of_equals": "at most",
    "prefixes": "prefixes",
    "group_mean": "documents each",
    "group_median": "median",
    "group_largest": "most",
}


@dataclass(frozen=True)
class Space:
    """One space of identifiers.

    Attributes
    ----------
    title : str
    facts : list of (name, value)
    levels : list of list of (heading, value)
    """

    title: str
    facts: list[tuple[str, str]]
    levels: list[list[tuple[str, str]]]


def identifier_spaces(gathered: Gathered) -> list[Space]:
    """Describe the run's identifiers.

    None of an object store, from which all would be fetched for a few numbers, and none where one
    is missing: the cube is there without them.
    """
    if not is_local(gathered.run):
        return []
    try:
        spec = validate(SweepSpec, gathered.attributes.get("spec"), source="the cube's spec")
        found = diagnose(gathered.layout, spec)
    except GenretError as error:
        logger.info("the page does not describe the identifiers: %s", error)
        return []
    return [
        Space(
            clean(one.title),
            [(key.replace("_", " "), _text(value)) for key, value in one.diagnosis.facts.items()],
            [
                [(heading, _text(level[key])) for key, heading in _COLUMNS.items()]
                for level in one.diagnosis.levels
            ],
        )
        for one in found
    ]


def _text(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return decimal(value) if isinstance(value, float) else clean(str(value))
