"""The ledger of finished shards: one marker file each, written after the shard is durable.

A shard is done when its marker file exists, can be read, and names the inputs that the study now
has for it (`Ledger.read`; they come of `genret_dask.study.template.shard_tasks`). On restart only
markers are believed; the hashes in them are for `verify`.

A marker names what each dataset of its shard was made from. Where only one of them still holds, as
the candidates' losses do when the beams change, a file `KEY.kept.json` takes the marker's place:
the shard is not done, but that dataset need not be computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genret_dask.errors import CubeError, ModelError
from genret_dask.shards.plan import ShardTask
from genret_dask.storage.places import create_file, is_local, names_in, read_files, replace_file
from genret_dask.storage.records import dump_record, parse_record, read_record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ledger:
    """Read and write the markers of one cube; those made from something else do not count.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    def path(self, task: ShardTask) -> Path:
        return self.folder / f"{task.key}.json"

    def read(self, task: ShardTask) -> dict[str, Any] | None:
        """Return the marker of a shard that is done; None for any other shard."""
        return _if_current(task, _read(read_record, self.path(task)))

    def kept(self, task: ShardTask) -> dict[str, dict[str, str]]:
        """What still holds of a shard that is not done: SHA-256 by array, by dataset."""
        return _holding(task, _read(read_record, self._kept(task)))

    def _kept(self, task: ShardTask) -> Path:
        return self.folder / f"{task.key}.kept.json"

    def read_all(self, tasks: Iterable[ShardTask]) -> dict[str, dict[str, Any]]:
        """Markers of these tasks by their keys, as `read` gives them: one listing, then reads."""
        there = set(names_in(self.folder))
        wanted = {task.key: task for task in tasks if self.path(task).name in there}
        texts = read_files({key: self.path(task) for key, task in wanted.items()})
        found = {
            key: _if_current(task, _read(parse_record, texts[key], self.path(task)))
            for key, task in wanted.items()
        }
        return {key: marker for key, marker in found.items() if marker is not None}

    def mark(self, task: ShardTask, digests: dict[str, str]) -> dict[str, Any]:
        """Write the marker of a shard whose chunks are durable, whole or not at all.

        Raises
        ------
        CubeError
            The shard was computed twice, with different results; it then has no marker.
        """
        marker = _marker(task, dict(task.fingerprints), digests)
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
        self._kept(task).unlink(missing_ok=True)
        return marker

    def drop(self, task: ShardTask) -> None:
        """Have a shard count as not done, and nothing of it as kept."""
        self.path(task).unlink(missing_ok=True)
        self._kept(task).unlink(missing_ok=True)

    def revise(self, tasks: Sequence[ShardTask]) -> dict[str, set[str]]:
        """Take back markers that no longer hold, whole or for one of their datasets.

        Returns
        -------
        dict of task key to set of str
            Datasets that still hold, of shards of which any does.
        """
        wanted = {task.key: task for task in tasks}
        found: dict[str, set[str]] = {}
        there = [name for name in names_in(self.folder) if name.endswith(".json")]
        paths = {name: self.folder / name for name in there}
        texts = read_files(paths)
        for name, path in paths.items():
            task = wanted.get(name.removesuffix(".json").removesuffix(".kept"))
            holding = _holding(task, _read(parse_record, texts[name], path)) if task else {}
            if task is not None and holding:
                found.setdefault(task.key, set()).update(holding)
                if path == self.path(task) and len(holding) == len(task.fingerprints):
                    continue
                sums = {name: sha for part in holding.values() for name, sha in part.items()}
                ours = {name: one for name, one in task.fingerprints if name in holding}
                replace_file(self._kept(task), dump_record(_marker(task, ours, sums)))
            if task is None or not holding or path != self._kept(task):
                path.unlink(missing_ok=True)
        return found

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


def _read(read: Callable[..., dict[str, Any] | None], *source: Any) -> dict[str, Any] | None:
    """Read or parse a marker; None where there is none, or a damaged one."""
    try:
        return read(*source)
    except ModelError as error:
        logger.warning("%s; its shard counts as not done", error.found)
        return None


def _marker(
    task: ShardTask, fingerprints: dict[str, str], digests: dict[str, str]
) -> dict[str, Any]:
    return {
        "fingerprints": fingerprints,
        "model": task.name,
        "start": task.start,
        "stop": task.stop,
        "sha256": dict(sorted(digests.items())),
    }


def _if_current(task: ShardTask, marker: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the marker where it has the task's fingerprints; any, for a reader that has none."""
    if marker is None or not task.fingerprints:
        return marker
    same = marker.get("fingerprints") == dict(task.fingerprints) and marker["stop"] == task.stop
    return marker if same else None


def _holding(task: ShardTask, record: dict[str, Any] | None) -> dict[str, dict[str, str]]:
    """SHA-256 by array of each dataset that was made from what the task has it made from."""
    if record is None or (record.get("start"), record.get("stop")) != (task.start, task.stop):
        return {}
    made_from, sums = record.get("fingerprints", {}), record.get("sha256", {})
    return {
        dataset: {name: sha for name, sha in sums.items() if name.startswith(f"{dataset}/")}
        for dataset, fingerprint in task.fingerprints
        if made_from.get(dataset) == fingerprint
    }
