"""Damaged input ends in success or in an error that names the file and says what to do."""

from __future__ import annotations

import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genret_dask.errors import GenretError
from tests.hostile.mutations import Content, damaged, write
from tests.hostile.targets import TARGETS, Target

HANG_SECONDS = 10
MEMORY_BYTES = 3 * 2**29
"""More than what the process has."""

COUNTS = {"refused": 0, "read": 0}


@contextmanager
def bounded() -> Iterator[None]:
    """Turn a hang into a TimeoutError, and a memory blow-up into a MemoryError."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"not done after {HANG_SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def check(target: Target, files: dict[str, Content]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "input")
        folder.mkdir()
        target.rest(folder)
        write(files, folder)
        try:
            with bounded():
                target.load(folder)
        except GenretError as error:
            COUNTS["refused"] += 1
            text = str(error)
            assert str(folder) in text, f"names no file: {text}"
            assert error.expected or error.fix, f"says not what to do: {text}"
            assert len(text) < 20_000
        else:
            COUNTS["read"] += 1


@pytest.mark.parametrize("kind", TARGETS)
def test_the_valid_files_are_read(kind, tmp_path):
    target = TARGETS[kind]
    target.rest(tmp_path)
    write({name: source.bytes_ for name, source in target.sources.items()}, tmp_path)
    target.load(tmp_path)


@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files_are_refused_or_read(kind):
    fuzz(kind, 200, derandomize=True)


@pytest.mark.slow
def test_five_thousand_damaged_inputs():
    COUNTS.update(refused=0, read=0)
    for kind in TARGETS:
        fuzz(kind, 500, derandomize=False)
    assert sum(COUNTS.values()) >= 5000
    assert min(COUNTS.values()) > 100, COUNTS


def fuzz(kind: str, cases: int, *, derandomize: bool) -> None:
    target = TARGETS[kind]

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        check(target, data.draw(damaged(target.sources)))

    run()
