"""Loaded by the workers of chaos tests: tells what they do with shards, slows or breaks them.

By environment variable: CHAOS_LOG, a file that gets a line for every shard that is begun or done;
CHAOS_SLEEP, seconds before a shard is computed; CHAOS_POISON, `KEY=HOW` for one that fails by an
error (`raise`), an exit, or a segmentation fault (`exit`, `fault`); CHAOS_HUNGER, `KEY=BYTES` for
one whose queries take so much each, and are expected to take a fifth of it.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import numpy as np

from genret_dask.inference.memory import Decoding
from genret_dask.kinds.fixed import CodeDecoder
from genret_dask.shards import task as module
from genret_dask.shards.ledger import Ledger

compute_shard, mark = module.compute_shard, Ledger.mark
search, query_bytes = CodeDecoder.search, Decoding.query_bytes
hunger = 0  # bytes a query of the current shard


def tell(what: str, key: str) -> None:
    line = f"{what} {key} {os.getpid()}\n".encode()
    log = os.open(os.environ["CHAOS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line)
    os.close(log)


def slowly(task: Any, *rest: Any) -> Any:
    tell("begun", task.key)
    time.sleep(float(os.environ.get("CHAOS_SLEEP", 0)))
    poisoned, _, how = os.environ.get("CHAOS_POISON", "").partition("=")
    if task.key == poisoned:
        if how == "raise":
            raise ZeroDivisionError(f"query 3 of {task.key} cannot be searched")
        os._exit(1) if how == "exit" else ctypes.string_at(0)
    global hunger
    hungry, _, size = os.environ.get("CHAOS_HUNGER", "").partition("=")
    hunger = int(size) if task.key == hungry else 0
    return compute_shard(task, *rest)


def hungrily(self: CodeDecoder, tokens: Any, lengths: Any) -> Any:
    held = np.ones(len(tokens) * hunger, dtype=np.uint8)
    time.sleep(0.5 if held.size else 0)  # for the nanny to see it
    return search(self, tokens, lengths)


def marked(self: Ledger, task: Any, digests: dict[str, str]) -> Any:
    marker = mark(self, task, digests)
    tell("done", task.key)
    return marker


def dask_setup(worker: Any) -> None:
    module.compute_shard = slowly
    Ledger.mark = marked  # type: ignore[method-assign]
    CodeDecoder.search = hungrily  # type: ignore[method-assign]
    Decoding.query_bytes = (  # type: ignore[method-assign]
        lambda self, *shape: max(query_bytes(self, *shape), hunger // 5)
    )
