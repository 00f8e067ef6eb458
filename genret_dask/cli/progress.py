"""Progress of a study's stages: bars on a terminal, now and then a line anywhere else."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import click
from tqdm import tqdm

from genret_dask.monitoring.log import unit_of

_LINE_SECONDS = 10.0


class ProgressBars:
    """A callable (stage, done, total) that shows one bar a stage.

    On a terminal that cannot go back in a line, and where there is no terminal, it writes lines.
    A stream that is gone is no reason to stop: nothing more is shown then.

    Parameters
    ----------
    stream : text stream
        Standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr or io.StringIO()  # none at all: started with 2>&-
        self._bars = _goes_back(self._stream)
        self._stage: str | None = None
        self._total = 0.0
        self._bar: tqdm | None = None
        self._before = 0.0
        self._began = self._spoke = time.monotonic()

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(self, *error: object) -> None:
        with _if_read():
            self._close()

    def __call__(self, stage: str, done: float, total: float) -> None:
        with _if_read():
            self._show(stage, done, total)

    def _show(self, stage: str, done: float, total: float) -> None:
        again = self._bars and self._bar is None and done < total
        if again or (stage, total) != (self._stage, self._total):
            self._open(stage, done, total)
        if self._bar is not None:
            self._bar.n = min(done, total)  # a sum of shares may be a rounding error above
            self._bar.update(0)
            if done >= total:
                self._close()
        elif self._bars:
            return  # told again that it is done
        elif done >= total or time.monotonic() - self._spoke >= _LINE_SECONDS:
            self._spoke = time.monotonic()
            self._stream.write(self._line(stage, done, total) + "\n")
            self._stream.flush()

    def _open(self, stage: str, done: float, total: float) -> None:
        """Start a stage; what was done before does not count in its rate."""
        self._close()
        self._before = done if done < total else 0.0
        self._stage, self._total = stage, total
        self._began = self._spoke = time.monotonic()
        if self._bars:
            self._bar = tqdm(
                total=total,
                initial=self._before,
                desc=stage,
                unit=unit_of(stage),
                unit_scale=True,
                file=self._stream,
                dynamic_ncols=True,
            )

    def _line(self, stage: str, done: float, total: float) -> str:
        unit, elapsed = unit_of(stage), time.monotonic() - self._began
        form = ",.0f" if total >= 10 or total == int(total) else ",.2f"
        counted = f"{done:{form}}/{total:{form}}"
        line = f"{stage:<20}{done / total:4.0%}  {counted} {unit}  {elapsed:.0f} s"
        if self._before < done < total:
            rate = (done - self._before) / elapsed
            line += f", {rate:,.1f} {unit}/s, {(total - done) / rate:.0f} s left"
        return line

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def echo(text: str) -> None:
    """Write a line to standard error, if there is still somebody to read it."""
    with _if_read(), tqdm.external_write_mode(file=sys.stderr):
        click.echo(text, err=True)


@contextmanager
def _if_read() -> Iterator[None]:
    """Drop what is written to a standard error that is gone, by the interpreter's end too."""
    try:
        yield
    except (OSError, ValueError):
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _goes_back(stream: TextIO) -> bool:
    """Whether a line on this terminal can be written over."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
