"""How long the stages of a study took, and on what machines: `stages.json` of a run directory."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from genret_dask.cluster_arguments import usable_cores
from genret_dask.errors import GenretError
from genret_dask.storage import replace_file

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

FILE = "stages.json"
_WRITE_SECONDS = 5.0


class StageLog:
    """A callable (stage, done, total), as a study's progress is, that keeps the time of each stage.

    The file is written when a stage ends, and now and then before: of a run that was stopped, the
    part that was done counts. A run that has nothing to do adds nothing.

    Parameters
    ----------
    folder : path
        The run directory.
    client : distributed.Client, optional
        Whose workers do the work.
    """

    def __init__(self, folder: Path, client: Client | None = None) -> None:
        self._path = folder / FILE
        self._client = client
        self._began: dict[str, float] = {}
        self._stages: dict[str, dict[str, float]] = {}
        self._spoke = 0.0
        self._earlier: list[dict[str, Any]] = []
        self._machines: list[dict[str, Any]] | None = None
        self._started = datetime.now(UTC)

    def look_at_machines(self) -> None:
        """Ask the workers what they run on; not to be called from the client's event loop."""
        if self._machines is None:
            self._machines = machines_of(self._client)

    def __call__(self, stage: str, done: float, total: float) -> None:
        now = time.monotonic()
        if not self._stages:
            self._earlier = read_stages(self._path.parent)
        began = self._began.setdefault(stage, now)
        self._stages[stage] = {"seconds": round(now - began, 3), "done": done, "total": total}
        if done >= total or now - self._spoke >= _WRITE_SECONDS:
            self._spoke = now
            self._write()

    def _write(self) -> None:
        if not self._path.parent.is_dir():
            return
        mine = {
            "began": self._started.isoformat(timespec="seconds"),
            "machines": self._machines or [],
            "stages": self._stages,
        }
        text = json.dumps({"runs": [*self._earlier, mine]}, indent=1) + "\n"
        try:
            replace_file(self._path, text.encode())
        except GenretError as error:
            logger.warning("%s", error.found)


def read_stages(folder: Path) -> list[dict[str, Any]]:
    """What every run of a study recorded: began, machines, and by stage seconds, done and total.

    Empty where nothing was recorded, or nothing that can be read.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return [run for run in content["runs"] if isinstance(run["stages"], dict)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged: %s", folder / FILE, error)
        return []


def machine() -> dict[str, Any]:
    """The machine of this process, as plain JSON values."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "gpus": _gpus(),
    }


def machines_of(client: Client | None) -> list[dict[str, Any]]:
    """Machines of the workers, alike ones once: with `workers` and `threads`, how many there are.

    This process alone is one worker of one thread.
    """
    if client is None:
        return [{"workers": 1, "threads": 1, **machine()}]
    try:
        threads = client.nthreads()
        found = client.run(machine)
    except Exception as error:  # a worker that leaves meanwhile is no reason to stop a study
        logger.warning("cannot tell what the workers run on: %s", error)
        return []
    counts: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for worker, one in found.items():
        key = json.dumps(one, sort_keys=True)
        counts[key] += 1
        sums[key] += threads.get(worker, 1)
    return [
        {"workers": count, "threads": sums[key], **json.loads(key)} for key, count in counts.items()
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
