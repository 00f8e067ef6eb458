"""What every executor takes and gives, so that a stage need not know where its tasks run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from genret_dask.executors.failures import FailureLog
from genret_dask.monitoring.log import Event, silent

Task = TypeVar("Task")
Result = TypeVar("Result")

Report = Callable[[float], None]
"""Gets the share of a task that is done."""
Progress = Callable[[float, float], None]
"""Gets the weight of the tasks that are done, and that of all."""


@dataclass(frozen=True)
class Hooks:
    """What an executor calls while tasks run.

    Attributes
    ----------
    failures : FailureLog
        Where tasks that failed are recorded.
    check : callable
        Called before each task, or all the time; raises where the run must stop.
    event : callable
        Hears of tasks that are done, tried again or failed, and of workers that join or leave.
    """

    failures: FailureLog = field(default_factory=FailureLog)
    check: Callable[[], None] = lambda: None
    event: Event = silent


class Executor(Protocol):
    """Runs the tasks of a stage."""

    def map(
        self,
        function: Callable[[Task, Report], Result],
        tasks: Sequence[Task],
        keys: Sequence[str],
        *,
        cost: Callable[[Task], float] = lambda task: 1.0,
        progress: Progress | None = None,
    ) -> list[Result]:
        """Return the results of ``function(task, report)`` in the order of the tasks.

        Parameters
        ----------
        function : callable
            Gets a task and a callable that takes the share of the task that is done.
        keys : sequence of str
            Names of the tasks.
        cost : callable
            A task's weight in the progress; costly tasks are best given first.
        progress : callable
            Gets the weight done and the total weight.

        Raises
        ------
        GenretError
            Tasks failed; all others were finished first.
        ClusterError
            The cluster lost its scheduler or all its workers and did not get them back.
        """
        ...
