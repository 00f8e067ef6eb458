"""The tasks of a stage that are not done yet, and what becomes of one that did not end well."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

DEATHS = 3
"""Workers that may die in a row with a task: then it runs alone, and then it has failed."""
TRIES = 3
"""Times that a task may end with an error of the operating system, such as a broken connection."""
LOSSES = 10
"""Times that a cluster may lose a task."""
_ROUNDING = 1e-9  # of the total: what a sum of shares may be off


@dataclass(eq=False)
class Work:
    """A task on its way.

    Attributes
    ----------
    row : int
        Its place among the tasks.
    key : str
    task : object
    cost : float
    share : float
        Of it, what is done.
    alone : bool
        Whether it runs with no other task beside it.
    attempts, deaths, tries, losses : int
        How often it was started; workers that died with it since it last got further; errors of
        the operating system; times that it was lost.
    worker : str
        That it failed on, or that died with it.
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
    """Hands out work: first what has to be run again, then what is new, at the end suspects alone.

    A worker that dies takes the tasks that waited on it along with the one that killed it. Which
    one did shows when each runs alone.

    Parameters
    ----------
    tasks : sequence
    keys : iterable of str
    cost : callable
        A task's weight in the progress.

    Attributes
    ----------
    size : int
        How many tasks there are in all.
    done, total : float
        Weights.
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
        """The next task to submit, while `running` others run; None where it has to wait."""
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
        """Take note of a share that is done; whether it is more than before."""
        if share <= work.share:
            return False
        self.done += (share - work.share) * work.cost
        if math.isclose(self.done, self.total, rel_tol=_ROUNDING):
            self.done = self.total
        work.share, work.deaths = share, 0
        return True

    def given_up(self, work: Work) -> None:
        """Take off the share that was done of a task that failed."""
        self.done -= work.share * work.cost
        work.share = 0.0

    def died(self, work: Work, worker: str) -> bool:
        """Take note of a worker that died with the task; whether it must not go on as it is."""
        work.deaths += 1
        work.attempts += 1
        work.worker = worker
        return work.deaths >= DEATHS

    def suspect(self, work: Work) -> bool:
        """Have the task run alone later; False when that was tried, or the task is to blame."""
        if work.alone:
            return False
        work.deaths = 0
        self._suspects.append(work)
        return True

    def lost(self, work: Work) -> bool:
        """Have a task that the cluster lost run again; False when that happened too often."""
        work.losses += 1
        return work.losses <= LOSSES and self._put_back(work)

    def refused(self, work: Work) -> bool:
        """Have a task run again that the operating system failed; False when it was tried."""
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
