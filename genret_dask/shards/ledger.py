"""The ledger of finished shards: one marker file each, written after the shard is on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genret_dask.artefacts import write_text
from genret_dask.errors import CubeError
from genret_dask.shards.plan import ShardTask


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

    def is_done(self, task: ShardTask) -> bool:
        """Whether the shard is in the cube, as its marker says."""
        return self.read(task) is not None

    def read(self, task: ShardTask) -> dict[str, Any] | None:
        try:
            marker = json.loads((self.folder / f"{task.key}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return marker if marker.get("fingerprint") == self.fingerprint else None

    def mark(self, task: ShardTask, digests: dict[str, str]) -> dict[str, Any]:
        """Vouch for a shard whose chunks are durable: temporary file, fsync, rename, fsync."""
        marker = {
            "fingerprint": self.fingerprint,
            "model": task.name,
            "start": task.start,
            "stop": task.stop,
            "sha256": digests,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / f"{task.key}.json", json.dumps(marker, indent=1))
        return marker

    def digest(self, tasks: list[ShardTask]) -> str:
        """One hash over the markers of all shards.

        Raises
        ------
        CubeError
            A shard has no marker.
        """
        total = hashlib.sha256()
        for task in tasks:
            marker = self.read(task)
            if marker is None:
                raise CubeError(
                    f"shard {task.key} has no marker", fix="run the sweep again to finish it"
                )
            total.update(json.dumps(marker, sort_keys=True).encode())
        return total.hexdigest()
