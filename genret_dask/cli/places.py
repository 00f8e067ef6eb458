"""Folders on the command line: local paths, or URLs of object stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class Place(click.ParamType):
    """A path as it was given, or an object store's folder by its URL."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """`Path`, or `upath.UPath`; `InputError` where the URL cannot be taken."""
        from genret_dask.storage.places import place_of

        return place_of(value) if isinstance(value, str) and "://" in value else Path(value)


PLACE = Place()
