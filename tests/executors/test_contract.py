"""What every executor does alike, wherever its tasks run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from distributed import Client, LocalCluster

from genret_dask.errors import GenretError, ModelError
from genret_dask.executors.dask import DaskExecutor
from genret_dask.executors.failures import FailureLog, read_failures
from genret_dask.executors.protocol import Executor, Hooks
from genret_dask.executors.serial import SerialExecutor

Make = Callable[..., Executor]


@pytest.fixture(scope="module", params=["serial", "threads", "processes"])
def make(request) -> Iterator[Make]:
    """A function that makes an executor of each kind with some hooks."""
    if request.param == "serial":
        yield SerialExecutor
        return
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    processes = request.param == "processes"
    with LocalCluster(processes=processes, **options) as cluster, Client(cluster) as client:
        yield lambda hooks=None: DaskExecutor(client, hooks)


def names(stage: str, tasks: range) -> list[str]:
    return [f"{stage}-{task}" for task in tasks]


def test_results_come_in_the_order_of_the_tasks_whatever_ends_first(make):
    def sleeps(task, report):
        import time

        time.sleep(0.2 if task == 0 else 0)
        return task * 10

    assert make().map(sleeps, range(20), names("order", range(20))) == [*range(0, 200, 10)]
    assert make().map(sleeps, [], []) == []


def test_progress_is_weighed_by_cost_and_never_falls(make):
    def halves(task, report):
        report(0.5)
        return task

    seen, tasks = [], range(6)
    make().map(
        halves,
        tasks,
        names("cost", tasks),
        cost=lambda task: task + 1.0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen) and seen[-1] == (21, 21)
    assert len(seen) >= len(tasks)


def test_an_error_names_its_task_and_the_others_are_done(make, tmp_path):
    def odd(task, report):
        (tmp_path / str(task)).touch()
        if task % 2:
            raise ValueError(f"{task} is odd")

    with pytest.raises(GenretError, match="20 of 40 tasks failed") as caught:
        make().map(odd, range(40), names("odd", range(40)))
    assert "odd-1: ValueError: 1 is odd" in str(caught.value) and caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(list(tmp_path.iterdir())) == 40


def test_an_error_of_ours_is_raised_as_it_is(make):
    def refuses(task, report):
        if task == 1:
            raise ModelError("task 1 is bad", fix="mend it")

    with pytest.raises(ModelError, match="task 1 is bad") as caught:
        make().map(refuses, range(3), names("ours", range(3)))
    assert caught.value.fix == "mend it"


def test_a_poisoned_task_is_reported_until_it_succeeds(make, tmp_path):
    def poisoned(task, report):
        report(0.5)
        if task == 1 and not (tmp_path / "healed").exists():
            raise RuntimeError("poison")
        return task

    seen, events, tasks = [], [], range(3)
    hooks = Hooks(FailureLog(tmp_path), event=lambda name, **fields: events.append((name, fields)))
    executor = make(hooks)
    with pytest.raises(GenretError, match="poison-1: RuntimeError: poison"):
        executor.map(
            poisoned, tasks, names("poison", tasks), progress=lambda *both: seen.append(both)
        )
    assert seen[-1] == (2, 3) and max(done for done, _ in seen) < 3
    (failure,) = read_failures(tmp_path)
    assert failure.key == "poison-1" and failure.error == "RuntimeError: poison"
    assert failure.worker and failure.attempts == 1
    done = {fields["key"]: fields["seconds"] for name, fields in events if name == "task_done"}
    assert set(done) == {"poison-0", "poison-2"} and min(done.values()) >= 0
    (failed,) = [fields for name, fields in events if name == "task_failed"]
    failed.pop("worker", None)
    assert failed == {"key": "poison-1", "error": "RuntimeError", "text": "poison"}
    (tmp_path / "healed").touch()
    assert executor.map(poisoned, [1], ["poison-1"]) == [1]
    assert read_failures(tmp_path) == []


@pytest.mark.parametrize("how", ["check", "progress"])
def test_what_stops_a_run_ends_it_between_tasks_and_another_can_follow(make, tmp_path, how):
    def leaves_a_file(task, report):
        import time

        (tmp_path / str(task)).touch()
        time.sleep(0.01)
        return task

    def stop(*progress: float) -> None:
        if len(list(tmp_path.iterdir())) > 3:
            raise KeyboardInterrupt

    executor = make(Hooks(check=stop) if how == "check" else None)
    progress = stop if how == "progress" else None
    with pytest.raises(KeyboardInterrupt):
        executor.map(leaves_a_file, range(99), names(how, range(99)), progress=progress)
    assert len(list(tmp_path.iterdir())) < 40
    assert make().map(lambda task, report: task, [5], [f"{how}-after"]) == [5]
