"""Ranked lists and judgements as files in trec format.

trec tools forget the order of the lines: they sort a query's documents by score, in single
precision, and break ties by document id. So a written score is the cube's own, raised by as few
single-precision steps as it takes to be above the next rank's; the run then keeps the cube's
order. Nine digits name a single-precision number exactly.

The format separates its fields by blanks. A blank inside an id is written as in a URL (``%20``),
alike in run and qrels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import dask
import numpy as np
import xarray as xr

from genret_dask.cube.baselines import rankings_of
from genret_dask.cube.open import kinds, reading
from genret_dask.cube.schema import BASELINES
from genret_dask.errors import CubeError, DatasetError
from genret_dask.metrics.queries import place_in
from genret_dask.storage.places import replace_file, unwritable

_BLANK = re.compile(r"\s")
_LOWEST = np.finfo(np.float32).min


def write_run(
    search: xr.Dataset,
    document_ids: Sequence[str],
    path: Path | str,
    *,
    model: str,
    beam: int,
    tag: str | None = None,
) -> Path:
    """Write the ranked lists of one model at one beam size: ``query Q0 document rank score tag``.

    Parameters
    ----------
    search : xarray.Dataset
        `doc` and `score` over (model, query, beam, rank).
    document_ids : sequence of str
        Ids by row of the collection.
    path : path
        Replaced by one rename; its folder is made.
    model, beam : str, int
        Labels of the cube's coordinates.
    tag : str, optional
        Name of the run; model and beam by default.

    Returns
    -------
    pathlib.Path
        Where it was written.

    Raises
    ------
    InputError
        The cube has no such model or beam.
    DatasetError
        Two ids are the same once their blanks are written.
    CubeError
        A ranked document has no score, or is not a row of the collection.
    GenretError
        The file cannot be written.
    """
    asked: dict[str, str | int] = {"model": model, "beam": beam}
    places = {dim: place_in(search[dim].values, label, dim) for dim, label in asked.items()}
    doc, score = dask.compute(
        *(search[name].isel(places).transpose("query", "rank").data for name in ("doc", "score"))
    )
    documents = _documents(document_ids, doc[doc >= 0])
    queries = _names([str(name) for name in search["query"].values], "query")
    tag = _written(tag or f"{model}-beam{beam}")

    def lines() -> Iterator[str]:
        for row in range(len(doc)):
            ranked = np.flatnonzero(doc[row] >= 0)
            scores = _descending(score[row, ranked], str(search["query"].values[row]))
            for rank, (column, value) in enumerate(zip(ranked, scores, strict=True), start=1):
                name = documents[doc[row, column]]
                yield f"{queries[row]} Q0 {name} {rank} {value:.9g} {tag}\n"

    return _write(Path(path), lines())


def write_qrels(contrast: xr.Dataset, document_ids: Sequence[str], path: Path | str) -> Path:
    """Write the relevant documents of every query: ``query 0 document grade``.

    The sampled negatives are not written: nobody judged them.

    Parameters
    ----------
    contrast : xarray.Dataset
        `doc` and `relevance` over (query, candidate).
    document_ids, path
        As in `write_run`.

    Raises
    ------
    DatasetError, CubeError, GenretError
        As in `write_run`.
    """
    judged = contrast[["doc", "relevance"]].transpose("query", "candidate").compute()
    doc, relevance = judged["doc"].values, judged["relevance"].values
    documents = _documents(document_ids, doc[relevance > 0])
    queries = _names([str(name) for name in contrast["query"].values], "query")
    rows = np.argwhere(relevance > 0)
    lines = (
        f"{queries[row]} 0 {documents[doc[row, column]]} {relevance[row, column]}\n"
        for row, column in rows
    )
    return _write(Path(path), lines)


def write_runs(
    search: xr.Dataset, contrast: xr.Dataset, document_ids: Sequence[str], folder: Path | str
) -> None:
    """Write ``qrels.txt``, and ``MODEL.beamN.run`` of every model and beam.

    Parameters and errors are those of `write_run` and `write_qrels`. The rankings of a model are
    read once, and held.
    """
    folder = Path(folder)
    write_qrels(contrast, document_ids, folder / "qrels.txt")
    for row, model in enumerate(search["model"].values.tolist()):
        with reading("rankings"):
            rankings = search[["doc", "score"]].isel(model=[row]).compute()
        for beam in search["beam"].values.tolist():
            path = folder / f"{model}.beam{beam}.run"
            write_run(rankings, document_ids, path, model=model, beam=beam)


def write_baselines(tree: xr.DataTree, document_ids: Sequence[str], folder: Path | str) -> None:
    """Write ``baselines/qrels.txt``, and ``baselines/NAME.run`` of every baseline of a cube.

    Parameters and errors are those of `write_run` and `write_qrels`.
    """
    found, folder = rankings_of(tree), Path(folder) / BASELINES
    if found is None:
        return
    _, _, contrast = next(kinds(tree.root))
    write_qrels(contrast, document_ids, folder / "qrels.txt")
    (depth,) = found["beam"].values.tolist()
    for name in found["model"].values.tolist():
        path = folder / f"{name}.run"
        write_run(found, document_ids, path, model=name, beam=depth, tag=str(name))


def _descending(score: np.ndarray, query: str) -> np.ndarray:
    """Single-precision scores, strictly descending, as near to the given ones as that allows."""
    if np.isnan(score).any():
        raise CubeError(
            f"query {query} has {int(np.isnan(score).sum())} ranked documents without a score",
            expected="a score for each",
            fix="remove the cube and run the sweep again",
        )
    found = np.maximum(score.astype(np.float32), _LOWEST)
    for rank in range(len(found) - 2, -1, -1):
        if found[rank] <= found[rank + 1]:
            found[rank] = np.nextafter(found[rank + 1], np.float32(np.inf))
    return found


def _written(name: str) -> str:
    return _BLANK.sub(lambda blank: quote(blank.group()), name)


def _names(names: Sequence[str], kind: str) -> list[str]:
    """Ids as the format can hold them."""
    written = [_written(name) for name in names]
    first: dict[str, str] = {}
    for name, text in zip(names, written, strict=True):
        if first.setdefault(text, name) != name:
            raise DatasetError(
                f"{kind} ids {first[text]!r} and {name!r} are both {text} in a trec file",
                expected=f"{kind} ids that differ once blanks are written as in a URL",
                fix="rename one of them",
            )
    return written


def _documents(names: Sequence[str], rows: np.ndarray) -> list[str]:
    """Ids of documents, of which a cube names some rows."""
    written = _names(names, "document")
    wrong = rows[(rows < 0) | (rows >= len(written))]
    if len(wrong):
        raise CubeError(
            f"the cube names document row {wrong[0]}",
            expected=f"a row below {len(written)}, the collection's documents",
            fix="give the ids of the collection that the cube was made from",
        )
    return written


def _write(path: Path, lines: Iterable[str]) -> Path:
    content = "".join(lines).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise unwritable(path, error) from error
    return path
