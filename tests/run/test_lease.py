"""The lease of a run: one process at a time, found dead or alive, taken over, given back."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from genret_dask.errors import GenretError, LeaseError
from genret_dask.executors.protocol import Hooks
from genret_dask.executors.serial import SerialExecutor
from genret_dask.run import lease
from genret_dask.run.lease import Lease, read_holder
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import create_file, replace_file


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lease, "WATCH_SECONDS", 1.0)
    monkeypatch.setattr(lease, "GONE_SECONDS", 0.2)
    monkeypatch.setattr(lease, "_POLL_SECONDS", 0.02)


@pytest.fixture
def other(tmp_path):
    """A process that holds the lease of `tmp_path`."""
    script = """
    import sys, time
    from pathlib import Path
    from genret_dask.run import lease
    lease.RENEW_SECONDS = 0.05
    with lease.Lease(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def put(run: Path, number: int, **changes) -> Path:
    """A lease of another machine."""
    with Lease(run):
        holder = read_holder(run)
    (RunLayout(run).lease / "00000001.json").unlink()
    path = RunLayout(run).lease / f"{number:08d}.json"
    far = replace(holder, token="far", host="elsewhere", released=False, pid=7)
    path.write_text(json.dumps(asdict(replace(far, **changes))))
    return path


def test_a_live_process_keeps_others_out_and_is_named(tmp_path, other):
    with pytest.raises(LeaseError, match=rf"process {other.pid} on \S+, since 20") as caught:
        Lease(tmp_path).__enter__()
    assert caught.value.exit_code == 1 and "--name" in caught.value.fix
    other.communicate("")
    with Lease(tmp_path):
        assert read_holder(tmp_path).pid != other.pid


def test_a_killed_process_is_taken_over_soon(tmp_path, other, caplog, monkeypatch):
    monkeypatch.setattr(lease, "WATCH_SECONDS", 1e9)
    other.kill()
    while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:  # which holds nothing
        time.sleep(0.01)
    with Lease(tmp_path):
        assert [path.name for path in RunLayout(tmp_path).lease.iterdir()] == ["00000002.json"]
    assert f"from process {other.pid}" in caplog.text
    assert read_holder(tmp_path).released


def test_a_lease_with_other_fields_beside_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "WATCH_SECONDS", 1e9)
    with Lease(tmp_path):
        pass
    path = RunLayout(tmp_path).lease / "00000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": 1.5}))
    with Lease(tmp_path):
        pass


def test_a_lease_that_is_given_back_while_it_is_watched_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "WATCH_SECONDS", 60)
    path = put(tmp_path, 4)
    content = {**json.loads(path.read_text()), "released": True}
    timer = threading.Timer(0.1, lambda: replace_file(path, json.dumps(content).encode()))
    timer.start()
    with Lease(tmp_path):
        assert [one.name for one in RunLayout(tmp_path).lease.iterdir()] == ["00000005.json"]
    timer.join()


def test_two_leases_of_one_process_exclude_each_other_and_one_may_be_nested(tmp_path):
    first = Lease(tmp_path)
    with first, first:
        with pytest.raises(LeaseError), Lease(tmp_path):
            pass
        first.check()
    with Lease(tmp_path):
        pass


def test_a_lease_of_another_host_is_dead_when_it_was_not_renewed_while_we_watched(tmp_path):
    put(tmp_path, 4)
    with Lease(tmp_path) as mine:
        mine.check()
        assert [path.name for path in RunLayout(tmp_path).lease.iterdir()] == ["00000005.json"]


def test_a_lease_of_another_host_that_is_renewed_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "WATCH_SECONDS", 60)
    path = put(tmp_path, 4)
    ended = threading.Event()

    def renew() -> None:
        for count in range(10**6):
            content = {**json.loads(path.read_text()), "renewals": count}
            replace_file(path, json.dumps(content).encode())
            if ended.wait(0.05):
                return

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(LeaseError, match="process 7 on elsewhere"), Lease(tmp_path):
            pass
    finally:
        ended.set()
        thread.join()


def test_whoever_is_overtaken_stops_at_the_next_task(tmp_path):
    mine = Lease(tmp_path)
    ran = []

    def overtake(task, report):
        ran.append(task)
        folder = RunLayout(tmp_path).lease
        content = json.loads((folder / "00000001.json").read_text())
        text = json.dumps({**content, "pid": 7, "token": "x"}).encode()
        assert create_file(folder / "00000002.json", text)
        mine._renewing.join(20)

    with pytest.raises(LeaseError, match="taken over by process 7"), mine:
        SerialExecutor(Hooks(check=mine.check)).map(overtake, [1, 2], ["a", "b"])
    assert ran == [1]
    assert not read_holder(tmp_path).released  # what the other one holds is left alone


def test_of_many_that_want_a_free_run_one_gets_it(tmp_path):
    got, refused, barrier = [], [], threading.Barrier(8)

    def want() -> None:
        mine = Lease(tmp_path)
        barrier.wait()
        try:
            with mine:
                got.append(mine)
                barrier.wait()
        except LeaseError:
            refused.append(mine)
            barrier.wait()

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and len(refused) == 7


def test_a_damaged_lease_is_watched_and_taken_over(tmp_path):
    RunLayout(tmp_path).lease.mkdir()
    (RunLayout(tmp_path).lease / "00000003.json").write_text("{")
    with Lease(tmp_path):
        assert read_holder(tmp_path).renewals == 0


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenretError, match="cannot write to"), Lease(tmp_path / "file"):
        pass


def test_content_is_whole_or_absent(tmp_path):
    path = tmp_path / "a"
    assert create_file(path, b"one") and not create_file(path, b"two")
    assert path.read_text() == "one"
    replace_file(path, b"three")
    assert path.read_text() == "three" and [one.name for one in tmp_path.iterdir()] == ["a"]
