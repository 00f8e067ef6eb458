"""Run the command line, and have a signal sent to all of its processes at a chosen moment.

``python -m tests.findings.interrupted STAGE MOMENT SIGNAL ARGUMENT...``, where the moment is start,
look (the stage's first at the cluster), set-up (right after it), middle or end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from genret_dask.cli import main
from genret_dask.executors.watch import ClusterWatch
from genret_dask.study.sweep import Study


class Moment:
    """Calls `send`, once, when a stage has come to a moment."""

    def __init__(self, stage: str, moment: str, send: Callable[[], None]) -> None:
        self.wanted, self.send = (stage, moment), send
        self.stage, self.sent = "", False

    def come(self, moment: str) -> None:
        if (self.stage, moment) == self.wanted and not self.sent:
            self.sent = True
            self.send()

    def watch(self, set_attribute: Callable[[type, str, object], None]) -> None:
        """Have studies and their watch over the cluster tell when they come to a moment."""
        report, look, set_up = Study._report, ClusterWatch._look, ClusterWatch._set_up

        def reporting(study: Study, stage: str, done: float, total: float) -> None:
            report(study, stage, done, total)
            self.stage = stage
            self.come("start" if not done else "end" if done >= total else "middle")

        def looking(watch: ClusterWatch) -> int | None:
            self.come("look")
            return look(watch)

        def setting_up(watch: ClusterWatch, comm: object) -> None:
            set_up(watch, comm)
            self.come("set-up")

        set_attribute(Study, "_report", reporting)
        set_attribute(ClusterWatch, "_look", looking)
        set_attribute(ClusterWatch, "_set_up", setting_up)


if __name__ == "__main__":
    stage, moment, name = sys.argv[1:4]
    number = getattr(signal, name)
    Moment(stage, moment, lambda: os.killpg(os.getpgrp(), number)).watch(setattr)
    main(sys.argv[4:], prog_name="genret-dask")
