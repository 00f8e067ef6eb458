"""Keep the tasks of a stage that are not done, and decide whether one that failed runs again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

DEATHS = 3
"""After this many workers in a row died with a task it runs alone; after as many more it failed."""
TRIES = 3
"""How often a task may end with an error of the operating system, such as a broken connection."""
LOSSES = 10
"""How often a cluster may lose a task before the task has failed."""
_ROUNDING = 1e-9  # of the total: what a sum of shares may be off


@dataclass(eq=False)
class Work:
    """Describe a task that is not done: what it costs, and what happened to it so far.

    Attributes
    ----------
    row : int
        Index of the task among all tasks.
    key : str
    task : object
    cost : float
    share : float
        The done part of `cost`, from 0 to 1.
    alone : bool
        Whether the task runs with no other task beside it.
    attempts : int
        How often the task was started.
    deaths : int
        Workers that died with the task since it last got further.
    tries : int
        Errors of the operating system so far.
    losses : int
        How often the cluster lost the task.
    worker : str
        Address of the worker that the task failed on, or that died with it.
    """

    row: int
    key: str
    task: Any
    cost: float
    share: float = 0.0
    alone: bool = False
    attempts: int = 0
    deaths: int = 0
    tries: int = 0
    losses: int = 0
    worker: str = ""


class Backlog:
    """Hand out tasks: those to run again first, then new ones, at the end suspects alone.

    A worker that dies takes down the tasks that waited on it with the one that killed it. Running
    each of them alone shows which one did.

    Parameters
    ----------
    tasks : sequence
    keys : iterable of str
    cost : callable
        Gets a task; returns its weight in the progress.

    Attributes
    ----------
    size : int
        Number of all tasks.
    done, total : float
        Weight of what is done, and of all tasks.
    """

    def __init__(
        self, tasks: Sequence[Any], keys: Iterable[str], cost: Callable[[Any], float]
    ) -> None:
        self.size = self._left = len(tasks)
        self.total = float(sum(cost(task) for task in tasks))
        self.done = 0.0
        self._new = (
            Work(row, key, task, float(cost(task)))
            for row, (task, key) in enumerate(zip(tasks, keys, strict=True))
        )
        self._again: deque[Work] = deque()
        self._suspects: deque[Work] = deque()

    def take(self, running: int) -> Work | None:
        """Return the next task to submit while `running` others run; None if it has to wait."""
        work = self._again.popleft() if self._again else self._take_new()
        if work is None and self._suspects and not running:
            work = self._suspects.popleft()
            work.alone = True
        if work is not None:
            work.attempts += 1
        return work

    def __bool__(self) -> bool:
        """Whether there is anything left to take."""
        return bool(self._left or self._again or self._suspects)

    def progressed(self, work: Work, share: float) -> bool:
        """Set the share of a task that is done; return whether it is more than before."""
        if share <= work.share:
            return False
        self.done += (share - work.share) * work.cost
        if math.isclose(self.done, self.total, rel_tol=_ROUNDING):
            self.done = self.total
        work.share, work.deaths = share, 0
        return True

    def given_up(self, work: Work) -> None:
        """Subtract the share of a task that failed from the progress."""
        self.done -= work.share * work.cost
        work.share = 0.0

    def died(self, work: Work, worker: str) -> bool:
        """Count a worker that died with the task; return whether the task must now run alone."""
        work.deaths += 1
        work.attempts += 1
        work.worker = worker
        return work.deaths >= DEATHS

    def suspect(self, work: Work) -> bool:
        """Put the task aside to run alone later; return False if it has run alone already."""
        if work.alone:
            return False
        work.deaths = 0
        self._suspects.append(work)
        return True

    def lost(self, work: Work) -> bool:
        """Put back a task that the cluster lost; return False after `LOSSES` times."""
        work.losses += 1
        return work.losses <= LOSSES and self._put_back(work)

    def refused(self, work: Work) -> bool:
        """Put back a task that the operating system failed; return False after `TRIES` times."""
        work.tries += 1
        return work.tries < TRIES and self._put_back(work)

    def _take_new(self) -> Work | None:
        work = next(self._new, None)
        self._left -= work is not None
        return work

    def _put_back(self, work: Work) -> bool:
        if work.alone:
            self._suspects.appendleft(work)
        else:
            self._again.append(work)
        return True
