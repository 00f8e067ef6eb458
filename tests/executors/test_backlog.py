"""The backlog: what is handed out, when, and how often what did not end well is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from genret_dask.executors.backlog import DEATHS, LOSSES, TRIES, Backlog


def make(tasks: int) -> Backlog:
    return Backlog(range(tasks), (f"k-{row}" for row in range(tasks)), lambda task: task + 1)


def take_all(backlog: Backlog) -> list[str]:
    taken = []
    while (work := backlog.take(len(taken))) is not None:
        taken.append(work.key)
    return taken


def test_every_task_is_handed_out_once_in_order():
    backlog = make(4)
    assert backlog and backlog.size == 4 and backlog.total == 10
    assert take_all(backlog) == ["k-0", "k-1", "k-2", "k-3"]
    assert not backlog and backlog.take(0) is None


def test_what_was_lost_comes_first_and_not_for_ever():
    backlog = make(2)
    work = backlog.take(0)
    for _ in range(LOSSES):
        assert backlog.lost(work) and backlog
        assert backlog.take(0) is work
    assert not backlog.lost(work)
    assert take_all(backlog) == ["k-1"]


def test_errors_of_the_system_are_tried_again():
    backlog = make(1)
    work = backlog.take(0)
    for _ in range(TRIES - 1):
        assert backlog.refused(work)
        assert backlog.take(0) is work
    assert not backlog.refused(work)
    assert work.attempts == TRIES


def test_suspects_run_alone_after_everything_else_and_one_by_one():
    backlog = make(4)
    first, second = backlog.take(0), backlog.take(1)
    assert [backlog.died(first, "w") for _ in range(DEATHS)] == [False] * (DEATHS - 1) + [True]
    assert first.worker == "w" and first.attempts == 1 + DEATHS
    assert backlog.suspect(first) and backlog.suspect(second)
    assert take_all(backlog) == ["k-2", "k-3"]
    assert backlog.take(1) is None and backlog
    assert backlog.take(0) is first and first.alone
    assert backlog.take(1) is None
    assert backlog.lost(first)  # which is no reason to run beside another
    assert backlog.take(1) is None
    assert backlog.take(0) is first
    assert not backlog.suspect(first)
    assert backlog.take(0) is second and not backlog


def test_a_task_that_gets_further_is_no_suspect():
    backlog = make(1)
    work = backlog.take(0)
    for number in range(1, 20):
        assert not backlog.died(work, "w")
        assert backlog.progressed(work, number / 20)
    assert not backlog.progressed(work, 0.5)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), max_size=60))
def test_progress_never_falls_and_ends_at_the_total(reports):
    backlog = make(5)
    works = [backlog.take(0) for _ in range(5)]
    before = 0.0
    for row, share in reports:
        backlog.progressed(works[row], share)
        assert backlog.done >= before
        before = backlog.done
    for work in works:
        backlog.progressed(work, 1.0)
    assert backlog.done == backlog.total
