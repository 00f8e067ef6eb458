"""PyTorch's state of the whole process, lent to one task at a time.

Threads of a process share PyTorch's random numbers and number of threads, and the contexts in which
transformers builds a model (its weights are on no device there). Two trainings or exports at once
would give other weights each time, or fail. Search runs on ONNX Runtime and needs none of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_LOCK = threading.RLock()


@contextmanager
def alone_in_torch(threads: int | None = None) -> Iterator[None]:
    """Wait until no other thread uses PyTorch's state, and put that state back at the end.

    Parameters
    ----------
    threads : int, optional
        Of PyTorch and of the libraries of linear algebra meanwhile; as they are when left out.

    Examples
    --------
    >>> import torch
    >>> with alone_in_torch(threads=1):
    ...     _ = torch.manual_seed(7)
    ...     torch.get_num_threads()
    1
    """
    with _LOCK:
        import torch

        before = torch.get_num_threads()
        with torch.random.fork_rng(devices=[]), threadpool_limits(threads):
            torch.set_num_threads(threads or before)
            try:
                yield
            finally:
                torch.set_num_threads(before)
