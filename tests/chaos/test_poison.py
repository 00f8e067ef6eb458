"""Shards that always fail: by an error, or with the worker that computes them."""

from __future__ import annotations

import pytest

from genret_dask import open_cube
from genret_dask.errors import CubeError, GenretError
from genret_dask.executors.backlog import DEATHS
from genret_dask.executors.failures import read_failures
from tests.chaos.conftest import Stand, cluster

pytestmark = pytest.mark.chaos
POISONED = "search.codes.t5-00-00000008"
ALLOWED_FAILURES = 10  # Dask's, as our clusters set it


def poison(stand: Stand, how: str, monkeypatch, message: str) -> str:
    """Sweep with a poisoned shard; returns the error that the run ends with."""
    monkeypatch.setenv("CHAOS_POISON", f"{POISONED}={how}")
    with cluster(threads_per_worker=2) as client, pytest.raises(GenretError, match=message) as end:
        stand.study(client).search()
    assert end.value.exit_code == 1
    markers = {path.stem for path in (stand.run / "markers").rglob("*.json")}
    assert len(markers) == stand.shards - 1 and POISONED not in markers
    with pytest.raises(CubeError, match="not sealed"):
        open_cube(stand.run)
    return str(end.value)


def heal(stand: Stand, monkeypatch) -> None:
    """Sweep without the poison: only that shard is left to do."""
    before = stand.begun()
    monkeypatch.delenv("CHAOS_POISON")
    with cluster(workers=1) as client:
        stand.study(client).search()
    assert stand.begun() - before == {POISONED: 1}
    stand.compare()
    assert not (stand.run / "failures.json").exists()


def test_a_shard_that_fails_is_reported_and_the_others_are_done(stand, monkeypatch):
    text = poison(stand, "raise", monkeypatch, "1 of 40 tasks failed")
    assert f"{POISONED}: ZeroDivisionError: query 3" in text
    (failure,) = read_failures(stand.run)
    assert failure.key == POISONED and failure.worker.startswith("tcp://")
    assert failure.error.startswith("ZeroDivisionError: query 3") and failure.attempts == 1
    assert failure.time.startswith("20")
    assert max(stand.begun().values()) == 1
    heal(stand, monkeypatch)


@pytest.mark.parametrize("how", ["exit", pytest.param("fault", marks=pytest.mark.slow)])
def test_a_shard_that_kills_its_worker_is_found_out_and_no_other_is_condemned(
    stand, monkeypatch, how
):
    text = poison(stand, how, monkeypatch, "3 workers in a row died")
    assert POISONED in text and "KilledWorker" not in text
    (failure,) = read_failures(stand.run)
    assert failure.key == POISONED and failure.attempts >= 2 * DEATHS
    # Among others, then alone; each time Dask starts it again until it is told not to.
    assert 2 * DEATHS <= stand.begun()[POISONED] <= 2 * (1 + ALLOWED_FAILURES)
    heal(stand, monkeypatch)
