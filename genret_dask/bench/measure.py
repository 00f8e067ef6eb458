"""Two ways to do the same work, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One comparison.

    Attributes
    ----------
    measure, case : str
        What is compared, and on what.
    ours, peer : float or None
        Medians in `unit`, or the figures that were measured; None where nothing was timed, as the
        results differ.
    unit : str
    ratio : float or None
        How many times better ours is; None where the results differ.
    target : float or None
        The least ratio that this project asks of itself; None where there is none.
    equal : bool
        Whether both gave the same result.
    """

    measure: str
    case: str
    ours: float | None
    peer: float | None
    unit: str
    ratio: float | None
    target: float | None
    equal: bool

    def record(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    measure: str,
    case: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    equal: Callable[[Any, Any], bool],
    runs: int,
    target: float | None = None,
    per: float = 1.0,
    unit: str = "ms",
) -> Measurement:
    """Warm both up, see that they agree, then time them in turns.

    Parameters
    ----------
    equal : callable
        Gets the results of `ours` and `peer`.
    runs : int
        Timed calls of each.
    per : float
        Work of one call, in what `unit` is per.
    """
    if not equal(ours(), peer()):
        return Measurement(measure, case, None, None, unit, None, target, False)
    mine, theirs = (1e3 * taken / per for taken in _in_turns((ours, peer), runs))
    return Measurement(measure, case, mine, theirs, unit, theirs / mine, target, True)


def quantity(
    measure: str,
    case: str,
    ours: float,
    peer: float,
    unit: str,
    *,
    target: float | None = None,
    larger_is_better: bool = False,
    equal: bool = True,
) -> Measurement:
    """Compare two figures; those of different results, by `equal`, have no ratio."""
    ratio = ours / peer if larger_is_better else peer / ours
    return Measurement(measure, case, ours, peer, unit, ratio if equal else None, target, equal)


def seconds(function: Callable[[], Any]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def median_seconds(functions: Sequence[Callable[[], Any]], runs: int) -> list[float]:
    """Median time of each function, after one call to warm up, called in turns."""
    for function in functions:
        function()
    return _in_turns(functions, runs)


def _in_turns(functions: Sequence[Callable[[], Any]], runs: int) -> list[float]:
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(runs):
        for function, kept in zip(functions, times, strict=True):
            kept.append(seconds(function))
    return [statistics.median(kept) for kept in times]
