"""Dask spans of a study: by study, stage, and kind and model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import span
from distributed.utils import key_split


class TaskSpans:
    """Spans within the one around it, one for each prefix of task names; see `task_key`.

    Tasks that are submitted one by one, and again after a failure, share their model's span.
    """

    def __init__(self) -> None:
        self._annotations: dict[str, Any] = {}

    @contextmanager
    def of(self, key: str) -> Iterator[None]:
        """The span that the task of this key is to be submitted in."""
        prefix = key_split(key)
        if prefix not in self._annotations:
            _, _, model = prefix.partition(".")
            with span(model or prefix):
                self._annotations[prefix] = dask.get_annotations()["span"]
        with dask.annotate(span=self._annotations[prefix]):
            yield
