"""How long the stages of a study took, and on what machines: a view of its log."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from dask.system import cpu_count

from genret_dask.monitoring.log import RunLog, read_log

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 10.0


class StageLog:
    """A callable (stage, done, total), as a study's progress is, that logs its stages.

    Besides where they begin and end, now and then how far they are: of a run that was killed, the
    part that was done counts.

    Parameters
    ----------
    log : RunLog
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._began = self._spoke = 0.0

    def __call__(self, stage: str, done: float, total: float) -> None:
        now = time.monotonic()
        if stage != self._log.stage:
            self._began = self._spoke = now
            self._log.stage = stage
            self._log("stage_began", total=total)
        how_far = {"seconds": round(now - self._began, 3), "done": done, "total": total}
        if done >= total:
            self._log("stage_ended", **how_far)
            self._log.stage = None
        elif now - self._spoke >= _PROGRESS_SECONDS:
            self._spoke = now
            self._log("stage_progress", **how_far)


def read_stages(folder: Path) -> list[dict[str, Any]]:
    """What every run of a study recorded: began, machines, and by stage seconds, done and total.

    Runs that had nothing to do are left out.
    """
    runs: dict[str, dict[str, Any]] = {}
    before: dict[tuple[str, str], float] = {}  # seconds of a stage that a run came to again
    for event in read_log(folder):
        try:
            name, run = event["event"], event["run"]
            record = runs.setdefault(run, {"began": event["time"], "machines": [], "stages": {}})
            if name == "machines":
                record["machines"] = list(event["machines"])
            elif name in ("stage_progress", "stage_ended"):
                stage = event["stage"]
                seconds = before.get((run, stage), 0.0) + event["seconds"]
                record["stages"][stage] = {
                    "seconds": round(seconds, 3), "done": event["done"], "total": event["total"]
                }  # fmt: skip
                if name == "stage_ended":
                    before[run, stage] = seconds
        except (KeyError, TypeError) as error:
            logger.debug("an event of %s lacks %s", folder, error)
    return [record for record in runs.values() if record["stages"]]


def machine() -> dict[str, Any]:
    """The machine of this process, as plain JSON values."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": cpu_count(),
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
