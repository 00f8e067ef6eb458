"""Progress of a study's stages: bars on a terminal, now and then a line anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

_UNITS = {"train": "GFLOP", "export": "models", "search": "queries"}
_BAR = "{desc:<12}{percentage:3.0f}% |{bar:25}| {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}]"
_LINE_SECONDS = 10.0


class ProgressBars:
    """A callable (stage, done, total) that shows one bar a stage.

    Parameters
    ----------
    stream : text stream
        Standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bars = self._stream.isatty()
        self._stage: str | None = None
        self._bar: tqdm | None = None
        self._before = 0.0
        self._began = self._spoke = time.monotonic()

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def __call__(self, stage: str, done: float, total: float) -> None:
        if stage != self._stage:
            self._open(stage, done, total)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif done >= total or time.monotonic() - self._spoke >= _LINE_SECONDS:
            self._spoke = time.monotonic()
            self._stream.write(self._line(stage, done, total) + "\n")
            self._stream.flush()

    def _open(self, stage: str, done: float, total: float) -> None:
        """Start a stage; what was done before does not count in its rate."""
        self._close()
        self._before = done if done < total else 0.0
        self._stage = stage
        self._began = self._spoke = time.monotonic()
        if self._bars:
            self._bar = tqdm(
                total=total,
                initial=self._before,
                desc=stage,
                unit=_UNITS.get(stage, "steps"),
                unit_scale=True,
                bar_format=_BAR + " {rate_fmt}",
                file=self._stream,
                dynamic_ncols=True,
            )

    def _line(self, stage: str, done: float, total: float) -> str:
        unit, elapsed = _UNITS.get(stage, "steps"), time.monotonic() - self._began
        line = f"{stage:<12}{done / total:4.0%}  {done:,.0f}/{total:,.0f} {unit}  {elapsed:.0f} s"
        if self._before < done < total:
            rate = (done - self._before) / elapsed
            line += f", {rate:,.1f} {unit}/s, {(total - done) / rate:.0f} s left"
        return line

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._stage = None
