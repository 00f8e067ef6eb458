"""The ledger of finished shards: one marker file each, written after the shard is durable."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genret_dask.errors import CubeError, ModelError
from genret_dask.records import dump_record, parse_record, read_record
from genret_dask.shards.plan import ShardTask
from genret_dask.storage import create_file, is_local, names_in, read_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ledger:
    """Markers of one cube.

    Attributes
    ----------
    folder : Path
    fingerprint : str
        Of the cube's settings; a marker with another one does not count.
    """

    folder: Path
    fingerprint: str

    def path(self, task: ShardTask) -> Path:
        return self.folder / f"{task.key}.json"

    def is_done(self, task: ShardTask) -> bool:
        """Whether the shard is in the cube, as its marker says."""
        return self.read(task) is not None

    def read(self, task: ShardTask) -> dict[str, Any] | None:
        """The marker of a shard; None where there is none, or none that can be trusted."""
        path = self.path(task)
        try:
            return self._mine(read_record(path))
        except ModelError as error:
            logger.warning("%s; its shard counts as not done", error.found)
            return None

    def read_all(self, tasks: Iterable[ShardTask]) -> dict[str, dict[str, Any]]:
        """Markers that can be trusted, by the keys of their tasks: one listing, then reads."""
        there = set(names_in(self.folder))
        paths = {task.key: self.path(task) for task in tasks}
        paths = {key: path for key, path in paths.items() if path.name in there}
        found = {}
        for key, text in read_files(paths).items():
            try:
                marker = self._mine(parse_record(text, paths[key]))
            except ModelError as error:
                logger.warning("%s; its shard counts as not done", error.found)
                continue
            if marker is not None:
                found[key] = marker
        return found

    def mark(self, task: ShardTask, digests: dict[str, str]) -> dict[str, Any]:
        """Vouch for a shard whose chunks are durable; the marker is there whole or not at all.

        Raises
        ------
        CubeError
            The shard was computed twice, with different results; it then has no marker.
        """
        marker = {
            "fingerprint": self.fingerprint,
            "model": task.name,
            "start": task.start,
            "stop": task.stop,
            "sha256": digests,
        }
        path = self.path(task)
        if is_local(path):
            self.folder.mkdir(parents=True, exist_ok=True)
        if not create_file(path, dump_record(marker)):
            other = self.read(task)
            if other is None:  # it was damaged, and is no longer there
                path.unlink()
                return self.mark(task, digests)
            if other != marker:
                path.unlink(missing_ok=True)
                raise CubeError(
                    f"{task.key} was computed twice, with different results",
                    expected="the same results from every worker",
                    fix="use workers with the same processors and package versions, and run the "
                    "sweep again: the shard counts as not done",
                )
        return marker

    def digest(self, tasks: Sequence[ShardTask]) -> str:
        """One hash over the markers of all shards.

        Raises
        ------
        CubeError
            A shard has no marker.
        """
        total, markers = hashlib.sha256(), self.read_all(tasks)
        for task in tasks:
            if task.key not in markers:
                raise CubeError(
                    f"shard {task.key} has no marker", fix="run the sweep again to finish it"
                )
            total.update(json.dumps(markers[task.key], sort_keys=True).encode())
        return total.hexdigest()

    def _mine(self, marker: dict[str, Any] | None) -> dict[str, Any] | None:
        same = marker is not None and marker.get("fingerprint") == self.fingerprint
        return marker if same else None
