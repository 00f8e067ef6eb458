"""genret-dask status: how far a run is, from wherever its directory can be seen."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genret_dask.cli.options import path
from genret_dask.cli.tables import columns, format_table, labelled

if TYPE_CHECKING:
    from genret_dask.run.status import RunStatus

_FAILURES = 10  # listed


@click.command()
@click.argument("run", type=path)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a look.")
@click.option(
    "--watch",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Look again so often, until the run is over.",
)
def status(run: Path, as_json: bool, watch: float | None) -> None:
    """Say how far RUN is: what is done and left, rate and time left, failures, who is at it.

    It reads the run directory only, and can be asked on any machine that sees it.
    """
    from genret_dask.run.status import read_status

    while True:
        found = read_status(run)
        if as_json:
            click.echo(json.dumps(asdict(found), indent=None if watch else 1))
        else:
            if watch and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
                click.clear()
            click.echo(_page(found))
        if not watch or found.state not in ("running", "not begun"):
            return
        time.sleep(watch)


def _page(found: RunStatus) -> str:
    from genret_dask.study.estimate import duration

    rows: dict[str, object] = {"run": found.folder, "state": _state(found)}
    if found.client:
        rows["client"] = "pid {pid} on {host} since {since}".format(**vars(found.client))
    rows["dashboard"] = found.dashboard or None
    if found.last_event and found.log_age is not None:
        event = found.last_event
        what = event.get("key") or event.get("stage") or ""
        rows["log"] = f"{duration(max(0.0, found.log_age))} ago: {event['event']} {what}".rstrip()
    rows["done"] = ", ".join(text for _, text in found.counts)
    rows["failures"] = len(found.failures) or None
    lines = [labelled(rows)]
    for one in found.failures[:_FAILURES]:
        error = " ".join(str(one.error).split())[:200]
        lines.append(f"  {one.key}, {one.attempts} attempts: {error}")
    headings = columns("kind; model; trained; exported; shards; done; left")
    table = format_table([vars(one) for one in found.models], headings)
    return "\n".join(lines) + "\n\n" + table + "\n"


def _state(found: RunStatus) -> str:
    from genret_dask.study.estimate import duration

    stage = found.stage
    if found.why:
        return f"{found.state}: {' '.join(found.why.split())[:300]}"
    if stage is None:
        return found.state
    text = f"{found.state}: {stage.stage}, {stage.done:,.0f} of {stage.total:,.0f} {stage.unit}"
    if stage.rate:
        text += f", {stage.rate:,.1f} {stage.unit}/s"
    if stage.seconds_left is not None and found.state == "running":
        text += f", about {duration(stage.seconds_left)} left"
    return text
