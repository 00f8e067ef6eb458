"""The command at an address whose scheduler, or whose workers, are killed for good."""

from __future__ import annotations

import time

import pytest

from tests.chaos.conftest import kill, wait_for
from tests.chaos.test_clients import start
from tests.chaos.test_scheduler import servers

pytestmark = pytest.mark.chaos
__all__ = ["servers"]


@pytest.mark.parametrize("lost_timeout", [3, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["scheduler", "worker"])
def test_the_command_ends_loudly(stand, servers, what, lost_timeout, monkeypatch, record_property):
    monkeypatch.setenv("CHAOS_SLEEP", "0.2")
    servers.start()
    keys = {"address": servers.address, "timeout": 60}
    program = start(stand, cluster=keys | ({"lost_timeout": 3} if lost_timeout else {}))
    try:
        wait_for(lambda: stand.begun().total() >= 6, 300)
        servers.kill(what)
        for pid in {line.pid for line in stand.lines()} if what == "worker" else ():
            kill(pid)
        began = time.monotonic()
        _, text = program.communicate(timeout=300)
    finally:
        program.kill()
    record_property("seconds", round(time.monotonic() - began, 1))
    assert program.returncode == 1
    said = {"scheduler": f"the scheduler at {servers.address} has been", "worker": "no worker for"}
    assert said[what] in text and "lost_timeout" in text
    assert "Traceback" not in text and "KilledWorker" not in text and "Cancelled" not in text
