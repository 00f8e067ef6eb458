"""Progress: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios

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
    assert lines[0] == "search               30%  30/100 queries  12 s, 2.5 queries/s, 28 s left"
    assert lines[-1] == "search              100%  100/100 queries  40 s"


def test_a_small_total_is_told_from_nothing(clock):
    out = io.StringIO()
    with ProgressBars(out) as bars:
        bars("train", 0.314, 0.314)
    assert "0.31/0.31 GFLOP" in out.getvalue()


def test_work_done_before_does_not_count_in_the_rate(clock):
    out = io.StringIO()
    with ProgressBars(out) as bars:
        bars("search", 50, 100)
        clock.now += 12
        bars("search", 62, 100)
    assert (
        out.getvalue()
        == "search               62%  62/100 queries  12 s, 1.0 queries/s, 38 s left\n"
    )


def test_a_terminal_gets_a_bar_for_each_stage(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with ProgressBars(out) as bars:
        for stage in ("train", "search"):
            for done in (0, 5, 10):
                bars(stage, done, 10)
    assert "train" in out.getvalue() and "search" in out.getvalue()
    assert out.getvalue().count("100%") == 2


@pytest.mark.parametrize("term", ["dumb", "", None])
def test_a_terminal_that_cannot_go_back_gets_lines(monkeypatch, term):
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    out = Terminal()
    with ProgressBars(out) as bars:
        for done in (0, 5, 10):
            bars("search", done, 10)
    assert out.getvalue().splitlines() == ["search              100%  10/10 queries  0 s"]
    assert "\r" not in out.getvalue() and out.getvalue().isascii()


WORK = """
import sys
from genret_dask.cli.progress import ProgressBars, echo
echo("begins")
with ProgressBars() as bars:
    for stage in ("train", "search"):
        for done in range(101):
            bars(stage, done, 100)
echo("ends")
sys.stderr and sys.stderr.write("later")
print("done")
"""


@pytest.mark.parametrize("columns", [20, 40, 60, 200])
def test_a_bar_keeps_to_its_line(columns):
    """On a pseudo-terminal of that width."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", WORK], stderr=writer, stdout=subprocess.PIPE, env=environment
    )
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal
        while part := os.read(reader, 65536):
            shown += part
    os.close(reader)
    assert done.stdout == b"done\n"
    bars = [line for line in shown.decode("ascii").replace("\n", "\r").split("\r") if "%" in line]
    assert bars and max(map(len, bars)) <= columns
    assert columns < 40 or "100%" in bars[-1] and "100/100" in bars[-1]


@pytest.mark.parametrize("how", ["closed", "broken"])
def test_a_standard_error_that_is_gone_stops_nothing(how):
    if how == "closed":
        command = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", WORK]
        done = subprocess.run(command, stdout=subprocess.PIPE)
    else:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([sys.executable, "-c", WORK], stderr=writer, stdout=subprocess.PIPE)
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"done\n")
