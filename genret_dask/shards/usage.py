"""What a process holds in memory: now, and at most since its search began."""

from __future__ import annotations

import json
import logging
import resource
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from dask.utils import format_bytes

from genret_dask.storage.places import replace_file

logger = logging.getLogger(__name__)

_PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class MemoryUse:
    """What one worker process held while it searched.

    Attributes
    ----------
    worker : str
        Its address.
    peak_bytes : int
        Most resident memory at once, the interpreter and the open models included.
    since : {"search", "start"}
        Whether the peak is that of the search, or of the whole life of the process, training
        included, where the system cannot tell.
    estimated_bytes : int or None
        What it was expected to hold at most. None where decoding takes a device's memory.
    budget_bytes : int or None
        What it may hold.
    """

    worker: str
    peak_bytes: int
    since: str
    estimated_bytes: int | None
    budget_bytes: int | None

    def __str__(self) -> str:
        text = f"{self.worker}  {format_bytes(self.peak_bytes)}"
        if self.budget_bytes is not None:
            text += f" of {format_bytes(self.budget_bytes)}"
        if self.estimated_bytes is not None:
            text += f", estimated {format_bytes(self.estimated_bytes)}"
        if self.since == "start":
            text += ", training included"
        return text + (", OVER THE BUDGET" if self.is_over else "")

    @property
    def is_over(self) -> bool:
        """Whether the search itself went over the budget."""
        within = self.budget_bytes is None or self.peak_bytes <= self.budget_bytes
        return self.since == "search" and not within


def resident() -> int:
    """Bytes that this process holds in memory."""
    return psutil.Process().memory_info().rss


class Peak:
    """The most that this process has held since this was made, if the system can tell."""

    def __init__(self) -> None:
        try:
            (_PROCESS / "clear_refs").write_text("5")  # Linux: forget the high-water mark
            self.since = "search"
        except OSError:
            self.since = "start"

    def read(self) -> int:
        """Bytes."""
        try:
            status = (_PROCESS / "status").read_text()
            (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) * 1024
        except (OSError, ValueError):
            unit = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def largest(uses: Iterable[MemoryUse]) -> list[MemoryUse]:
    """The largest use of each worker that tasks reported, in the order of the workers' names."""
    ordered = sorted(uses, key=lambda one: (one.worker, one.peak_bytes, one.estimated_bytes or 0))
    return list({use.worker: use for use in ordered}.values())


def write_memory(uses: list[MemoryUse], path: Path) -> None:
    """Write what workers held in memory as JSON, and warn of those that went over their budget."""
    for use in uses:
        level = logging.WARNING if use.is_over else logging.INFO
        logger.log(level, "peak memory %s", use)
    text = json.dumps({"memory": [asdict(use) for use in uses]}, indent=1) + "\n"
    replace_file(path, text.encode())
