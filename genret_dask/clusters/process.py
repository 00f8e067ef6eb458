"""Prepares this process for a cluster on its own machine: environment variables and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def environ(environment: Mapping[str, str], *, inherited: bool) -> Iterator[None]:
    """Set the environment that local worker processes inherit, and put ours back at the end.

    Native thread counts are read when NumPy is imported, which is before a nanny's ``env`` takes
    effect, so they must be inherited. Nannies write Dask's own pre-spawn variables
    (``OMP_NUM_THREADS=1`` and its like) into this process; those are put back too.
    """
    import dask

    names = {*environment, *dask.config.get("distributed.nanny.pre-spawn-environ")}
    before = {name: os.environ.get(name) for name in names}
    if inherited:
        os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while a local cluster starts; it is raised right after.

    A cluster interrupted half way cannot be closed. The threads and worker processes that start
    here inherit the blocked signal, so that a later Ctrl-C reaches this process alone, which then
    closes the workers in order.
    """
    handler = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not callable(handler) or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Starting the tracker unblocks SIGINT in its thread: it must be up before the workers spawn.
    resource_tracker.ensure_running()
    held: list[int] = []
    # Blocked here, the signal may still reach another thread; its handler then runs in this one.
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)
