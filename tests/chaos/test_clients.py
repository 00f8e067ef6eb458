"""The process that runs a sweep: killed, interrupted, terminated, or not the only one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.chaos.conftest import LOCAL, PRELOAD, Stand, gone, wait_for, write_configs

pytestmark = pytest.mark.chaos
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)


def start(stand: Stand, cluster: dict = LOCAL) -> subprocess.Popen:
    """`genret-dask sweep` on two workers, in a session of its own."""
    command = "from genret_dask.cli import main; main()"
    environment = {**os.environ, "DASK_DISTRIBUTED__WORKER__PRELOAD": repr([str(PRELOAD)])}
    # As a terminal would: a shell's background jobs ignore Ctrl-C.
    return subprocess.Popen(
        [sys.executable, "-c", command, "sweep", *write_configs(stand, cluster)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def stop(program: subprocess.Popen, how: signal.Signals) -> tuple[str, list[psutil.Process]]:
    """Send a signal as its senders do; returns what was printed to stderr, and the processes."""
    processes = psutil.Process(program.pid).children(recursive=True)
    if how == signal.SIGINT:
        os.killpg(program.pid, how)
    else:
        program.send_signal(how)
    return program.communicate(timeout=180)[1], processes


@pytest.mark.parametrize(
    ("stand", "kills"),
    [("small", 3), pytest.param("full", 20, marks=pytest.mark.slow)],
    indirect=["stand"],
)
def test_stopped_clients_repeat_what_was_in_flight_and_leave_no_process(
    stand, kills, monkeypatch, record_property
):
    monkeypatch.setenv("CHAOS_SLEEP", "0.1")
    codes = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}
    words = {signal.SIGKILL: "", signal.SIGINT: "Interrupted.", signal.SIGTERM: "Terminated."}
    for number in range(kills):
        how = SIGNALS[number % 3]
        due = stand.begun().total() + stand.shards // (kills + 1)
        program = start(stand)
        try:
            wait_for(lambda due=due: stand.begun().total() >= due, 300)
            text, processes = stop(program, how)
        finally:
            program.kill()
        assert program.returncode == codes[how], text
        assert words[how] in text
        assert "/genret_dask/" not in text  # no traceback of ours; a worker may end with Dask's
        assert gone(processes)
    monkeypatch.setenv("CHAOS_SLEEP", "0")
    last = start(stand)
    out, text = last.communicate(timeout=300)
    assert last.returncode == 0, text
    assert "FLOPs/query" in out
    begun = stand.begun()
    record_property("starts", begun.total())
    assert stand.recomputed() == [] and not stand.differences()
    assert stand.shards <= begun.total() <= stand.shards + 2 * kills


def test_the_second_client_is_refused_and_the_first_goes_on(stand, monkeypatch):
    monkeypatch.setenv("CHAOS_SLEEP", "0.2")
    first = start(stand)
    try:
        wait_for(lambda: stand.begun().total() > 0, 300)
        second = start(stand)
        text = second.communicate(timeout=180)[1]
        assert second.returncode == 1
        assert f"process {first.pid} on" in text and "since 20" in text
        assert first.poll() is None
        _, text = first.communicate(timeout=300)
        assert first.returncode == 0, text
    finally:
        first.kill()
    assert max(stand.begun().values()) == 1 and not stand.differences()


def test_a_poisoned_shard_ends_the_command_with_1(stand, monkeypatch):
    monkeypatch.setenv("CHAOS_POISON", "search.codes.llama-01-00000002=raise")
    program = start(stand)
    text = program.communicate(timeout=300)[1]
    assert program.returncode == 1
    assert "search.codes.llama-01-00000002: ZeroDivisionError: query 3" in text
    assert "Traceback (most" not in text and not (stand.run / "report").exists()
