"""What of a study is done, in one sentence: for a run that ends before its end."""

from __future__ import annotations

from pathlib import Path

from genret_dask.errors import GenretError
from genret_dask.run.spec import is_run
from genret_dask.run.status import read_status
from genret_dask.specs import SweepSpec
from genret_dask.storage.artefacts import RECORD
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import place_of


def what_is_done(folder: Path, spec: SweepSpec | None = None) -> str:
    """Say what a run directory holds, and that the same command goes on from there.

    Parameters
    ----------
    folder : Path
    spec : SweepSpec, optional
        Of the study that is run; what the directory says by default.

    Examples
    --------
    >>> what_is_done(Path("runs/none"))
    'Nothing is done yet. The same command starts anew.'
    """
    folder = place_of(folder)
    run = RunLayout(folder)
    try:
        status = read_status(folder, spec if is_run(folder) else None)
    except GenretError:  # there is no run yet
        return "Nothing is done yet. The same command starts anew."
    done = _there(run.collection, run.pairs, run.tokenizer())
    done += [text for count, text in status.counts if count]
    done += _there(run.results, run.report)
    if not done:
        return "Nothing is done yet. The same command starts anew."
    return f"Done: {', '.join(done)}. The same command goes on from there."


def _there(*artefacts: Path) -> list[str]:
    return [one.name for one in artefacts if (one / RECORD).is_file()]
