"""Attempts at a shard that did not end: a worker that died, perhaps for want of memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genret_dask.storage.places import is_local

logger = logging.getLogger(__name__)


@contextmanager
def attempt(folder: Path, key: str) -> Iterator[int]:
    """Attempt a shard; gives how many attempts before this one died on the way.

    The file that counts them is gone once an attempt ends, even by an error. It is a hint, and not
    made durable: where it cannot be written, attempts are not counted.
    """
    path = folder / f"{key}.attempts"
    died = _read(path)
    try:
        if is_local(folder):
            folder.mkdir(parents=True, exist_ok=True)
        path.write_text(str(died + 1))
    except Exception as error:  # an object store's library has errors of its own
        logger.warning("cannot count the attempts at %s: %s", key, error)
    try:
        yield died
    finally:
        try:
            path.unlink(missing_ok=True)
        except Exception as error:
            logger.warning("cannot remove %s: %s", path, error)


def _read(path: Path) -> int:
    try:
        return max(0, int(path.read_text()))
    except Exception:
        return 0
