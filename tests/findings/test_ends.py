"""Ends: Ctrl-C, SIGTERM and lost schedulers at any moment of any stage (B6)."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import pty
import random
import signal
import struct
import subprocess
import sys
import termios
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from distributed import Client, LocalCluster

from genret_dask.cli import _signals_handled, main
from genret_dask.errors import ClusterError, GenretError, Terminated
from genret_dask.executors.dask import DaskExecutor
from genret_dask.executors.serial import SerialExecutor
from genret_dask.executors.watch import ClusterWatch
from genret_dask.monitoring.log import read_log
from genret_dask.run.status import read_status, what_is_done
from tests.findings.conftest import FEMTO, write_tiny
from tests.findings.interrupted import Moment

STAGES = (
    "dataset", "tokenizer", "identifiers", "index", "train", "export",
    "spans of candidates", "search", "results", "report",
)  # fmt: skip
ON_THE_CLUSTER = ("index", "train", "export", "search")
MOMENTS = [
    (stage, moment)
    for stage in STAGES
    for moment in ("start", "look", "set-up", "middle", "end")
    if moment in ("start", "end") or stage in ON_THE_CLUSTER
    if (stage, moment) != ("index", "middle")  # it is one task
]
"""In the order of a run: each interrupts the one that goes on from the one before."""
USUAL = [
    ("dataset", "start"), ("tokenizer", "end"), ("index", "look"), ("train", "start"),
    ("train", "look"), ("train", "set-up"), ("train", "middle"), ("export", "end"),
    ("search", "look"), ("search", "middle"), ("results", "start"), ("report", "end"),
]  # fmt: skip


def write_study(folder: Path, cluster: dict[str, Any]) -> list[str]:
    """The arguments of a sweep over TINY on a cluster, whose files are in `folder`."""
    spec = {
        "name": "tiny",
        "dataset": {"kind": "beir", "path": str(write_tiny(folder / "beir"))},
        "identifiers": ["codes", "ngrams"],
        "tokenizer": {"vocab_size": 400},
        "training": {"examples": 128, "batch_size": 16, "evaluations": 2},
        "models": list(FEMTO.values()),
        "inference": {"beams": [1, 5], "negatives": 8, "shard_queries": 2},
        "fits": {"bootstrap": 20},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(spec))
    (folder / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    files = {"--cluster": "cluster.yaml", "--config": "study.yaml", "--runs": "runs"}
    return ["sweep", *(word for key, one in files.items() for word in (key, str(folder / one)))]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        processes=False, n_workers=1, threads_per_worker=2, protocol="tcp", dashboard_address=None
    ) as one:
        yield one


@pytest.fixture(autouse=True)
def _ctrl_c_as_in_a_terminal() -> Iterator[None]:
    """A shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    names = ("genret_dask", "distributed", "distributed.client", "asyncio", "tornado.application")
    loggers = [logging.getLogger(name) for name in names]
    before = [(one, one.level, list(one.handlers)) for one in loggers]
    filters = [(one, list(one.filters)) for _, _, handlers in before for one in handlers]
    yield
    for one, level, handlers in before:
        one.setLevel(level)
        one.handlers[:] = handlers
    for handler, kept in filters:
        handler.filters[:] = kept


def check_interrupted(text: str, run: Path, word: str, code: int) -> None:
    last = text.rstrip().splitlines()[-1]
    assert last.startswith((f"{word}. Done: collection", f"{word}. Nothing is done yet")), text
    assert last.endswith(("The same command goes on from there.", "starts anew."))
    for noise in ("Traceback", "distributed", "Async", "heartbeat", "No event handler", "Warning"):
        assert noise not in text
    ended = list(read_log(run))[-1]
    assert (ended["outcome"], ended["exit"]) == ("interrupted", code)


@pytest.mark.parametrize("moments", [USUAL, pytest.param(MOMENTS, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_moment_says_what_is_done_and_goes_on(tmp_path, cluster, moments):
    """B6: every run but the last is interrupted, and goes on from the one before."""
    words = write_study(tmp_path, {"version": 1, "address": cluster.scheduler_address})
    run = tmp_path / "runs" / "tiny"
    for number, (stage, when) in enumerate(moments):
        sign, word, code = [
            (signal.SIGINT, "Interrupted", 130), (signal.SIGTERM, "Terminated", 143)
        ][number % 2]  # fmt: skip
        moment = Moment(stage, when, lambda sign=sign: os.kill(os.getpid(), sign))
        with pytest.MonkeyPatch.context() as patch:
            moment.watch(patch.setattr)
            result = CliRunner().invoke(main, words)
        assert moment.sent, (stage, when, result.output)
        assert result.exit_code == code, (stage, when, result.output)
        check_interrupted(result.stderr, run, word, code)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert read_status(run).state == "sealed"
    assert what_is_done(run) == (
        "Done: collection, tokenizer, 2 of 2 identifier spaces, 1 of 1 baselines, "
        "4 of 4 models trained, "
        "4 of 4 exported, 12 of 12 shards searched, results, report. "
        "The same command goes on from there."
    )


@pytest.mark.chaos
@pytest.mark.parametrize(
    "moments",
    [
        [("train", "middle", "SIGINT")],
        pytest.param(
            [(*one, sign) for one in MOMENTS for sign in ("SIGINT", "SIGTERM")],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_terminal_shows_nothing_of_dask_when_its_processes_end(tmp_path, moments):
    """B6: Ctrl-C reaches every process of the terminal, the workers' too."""
    kwargs = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    cluster = {"version": 1, "module": "dask.distributed", "class": "LocalCluster"}
    words = write_study(tmp_path, {**cluster, "kwargs": kwargs})
    done: set[tuple[str, str]] = set()
    for stage, when, sign in moments:
        if (stage, when) in done:  # of a stage that is over, nothing is left to be interrupted
            continue
        code, shown = in_a_terminal([stage, when, sign, *words])
        word, expected = ("Interrupted", 130) if sign == "SIGINT" else ("Terminated", 143)
        assert code == expected, shown
        check_interrupted(shown, tmp_path / "runs" / "tiny", word, expected)
        done.add((stage, when))


def in_a_terminal(words: list[str]) -> tuple[int, str]:
    """Run `tests.findings.interrupted` on a pseudo-terminal: its exit code and what it shows."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.findings.interrupted", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writer,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a pseudo-terminal
        while part := os.read(reader, 65536):
            shown += part
    os.close(reader)
    return process.wait(), shown.decode()


def test_a_watch_that_never_looked_leaves_no_error_of_its_own(cluster):
    """B6: what it had not subscribed to, it does not unsubscribe from."""
    with (
        Client(cluster) as client,
        pytest.raises(KeyboardInterrupt),
        ClusterWatch(client, ()).hearing({"some-topic": print}),
    ):
        raise KeyboardInterrupt


def test_a_cluster_that_is_lost_says_what_is_done(tmp_path, cluster, monkeypatch):
    """B6: the same for an error of the cluster, between a stage's start and its first look."""
    words = write_study(tmp_path, {"version": 1, "address": cluster.scheduler_address})

    def lost(*args: Any) -> int:
        raise ClusterError("the scheduler does not answer")

    monkeypatch.setattr(ClusterWatch, "_look", lost)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "Error: the scheduler does not answer" in result.stderr
    assert "\nDone: collection, tokenizer" in result.stderr
    assert "Traceback" not in result.output


def failing(task: int, report) -> int:
    report(0.5)
    if task == 1:
        raise ValueError("no")
    return task


@pytest.mark.parametrize("kind", ["dask", "serial"])
def test_a_task_that_failed_does_not_count_as_done(cluster, kind):
    """Terminal: a failed search showed 100 %."""
    seen: list[tuple[float, float]] = []
    with Client(cluster) as client:
        executor = DaskExecutor(client) if kind == "dask" else SerialExecutor()
        with pytest.raises(GenretError, match="t-1: ValueError: no"):
            executor.map(
                failing, [0, 1, 2], ["t-0", "t-1", "t-2"], progress=lambda *at: seen.append(at)
            )
    assert seen[-1] == (2.0, 3.0)
    assert max(done for done, _ in seen) < 3


class InAFinaliser:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def in_a_callback_of_the_collector() -> None:
    def callback(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(callback)
    gc.collect()


@pytest.mark.parametrize(
    ("sent", "error"),
    [(InAFinaliser, KeyboardInterrupt), (in_a_callback_of_the_collector, Terminated)],
)
def test_a_signal_that_python_would_drop_is_not_lost(sent, error, capsys):
    """B6: Dask has callbacks of the garbage collector, and Python drops what is raised in one."""
    with pytest.raises(KeyboardInterrupt) as caught, _signals_handled():
        sent()
        time.sleep(5)
    assert type(caught.value) is error
    assert "ignored" not in capsys.readouterr().err


def test_a_signal_in_the_middle_of_an_import_imports_nothing(monkeypatch):
    """B6"""
    monkeypatch.setitem(sys.modules, "distributed", types.ModuleType("distributed"))
    with pytest.raises(KeyboardInterrupt), _signals_handled():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_at_random_moments_of_a_process(tmp_path, sign):
    """B6: of a process of its own, to all of its processes, between two bytecodes of anything."""
    kwargs = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    cluster = {"version": 1, "module": "dask.distributed", "class": "LocalCluster"}
    words = write_study(tmp_path, {**cluster, "kwargs": kwargs})
    run, rng, ended = tmp_path / "runs" / "tiny", random.Random(0), 0
    program = "from genret_dask.cli import main; main()"
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not (run / "collection").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 6))
        os.killpg(process.pid, sign)
        _, shown = process.communicate(timeout=60)
        if process.returncode == 0:
            ended += 1
            continue
        assert process.returncode == (130 if sign == signal.SIGINT else 143), shown
        assert "Traceback" not in shown and "distributed" not in shown, shown
    assert ended < 5
