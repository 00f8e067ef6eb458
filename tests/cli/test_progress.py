"""Progress: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io

import pytest

from genret_dask.cli import progress
from genret_dask.cli.progress import ProgressBars


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_lines_elsewhere_come_now_and_then_with_rate_and_remaining_time(clock):
    out = io.StringIO()
    with ProgressBars(out) as bars:
        for done in range(0, 101, 10):
            bars("search", done, 100)
            clock.now += 4
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "search       30%  30/100 queries  12 s, 2.5 queries/s, 28 s left"
    assert lines[-1] == "search      100%  100/100 queries  40 s"


def test_work_done_before_does_not_count_in_the_rate(clock):
    out = io.StringIO()
    with ProgressBars(out) as bars:
        bars("search", 50, 100)
        clock.now += 12
        bars("search", 62, 100)
    assert out.getvalue() == "search       62%  62/100 queries  12 s, 1.0 queries/s, 38 s left\n"


def test_a_terminal_gets_a_bar_for_each_stage():
    out = Terminal()
    with ProgressBars(out) as bars:
        for stage in ("train", "search"):
            for done in (0, 5, 10):
                bars(stage, done, 10)
    assert "train" in out.getvalue() and "search" in out.getvalue()
    assert out.getvalue().count("100%") == 2
