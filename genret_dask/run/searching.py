"""Many queries searched with one model, in this process or on a cluster, and written to a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genret_dask.datasets import stored
from genret_dask.datasets.asked import Asked
from genret_dask.errors import InputError
from genret_dask.executors.protocol import Progress, Report
from genret_dask.metrics.runs import write_run
from genret_dask.run.carried import Place
from genret_dask.run.retriever import Found, Retriever, check_search
from genret_dask.shards.plan import runs, task_key
from genret_dask.shards.resources import current_resources
from genret_dask.storage.places import replace_file

if TYPE_CHECKING:
    from distributed import Client

_SHARD = 64  # queries a task
_RECORDS = ".jsonl"
Ranks = tuple[np.ndarray, np.ndarray]
"""doc int32 and score float32, [queries, ranks]."""


@dataclass(frozen=True)
class Search:
    """A search of many queries.

    Attributes
    ----------
    place : Place
        The model.
    beam : int
    top : int or None
        Documents of a query; None for all that the beam finds.
    how : dict
        See `Retriever`: provider, threads, memory.
    """

    place: Place
    beam: int
    top: int | None = None
    how: dict[str, Any] = field(default_factory=dict)

    def check(self, texts: Sequence[str], output: Path | None) -> None:
        """Refuse before any work what cannot be searched or written.

        Raises
        ------
        InputError
        """
        documents = len(stored.read_artefact(self.place.collection))
        check_search(self.place.kind, documents, texts, self.beam, self.top)
        if output is not None and not output.absolute().parent.is_dir():
            raise InputError(
                f"--output {output}: there is no folder {output.parent}", expected="a folder"
            )

    def run(
        self, texts: Sequence[str], client: Client | None = None, progress: Progress | None = None
    ) -> Found:
        """Search in this process, or as tasks of the client's workers.

        Raises
        ------
        GenretError
            See `Retriever`; of tasks, all others were finished first.
        """
        if client is None:
            retriever = Retriever(self.place, **self.how)
            return retriever.search(texts, self.beam, self.top, progress)
        from genret_dask.executors.dask import DaskExecutor

        collection = stored.read_artefact(self.place.collection)
        parts = [list(texts[first:last]) for first, last in runs(len(texts), _SHARD)]
        names = (self.place.kind.label, self.place.name)
        found = DaskExecutor(client).map(
            partial(_search_part, self),
            parts,
            [task_key("search", *names, 0, number) for number in range(len(parts))],
            cost=len,
            progress=progress,
        )
        doc, score = (np.concatenate(column) for column in zip(*found, strict=True))
        return Found(self.place, collection, texts, doc, score)


def _search_part(search: Search, texts: list[str], report: Report) -> Ranks:
    retriever = Retriever(search.place, resources=current_resources(), **search.how)
    found = retriever.search(texts, search.beam, search.top, lambda done, of: report(done / of))
    return found.doc, found.score


def json_lines(asked: Asked, found: Found) -> Iterator[str]:
    """Yield a JSON record for each query: _id, text, and hits as `Hit` has them."""
    for name, text, hits in zip(*asked, found, strict=True):
        yield json.dumps({"_id": name, "text": text, "hits": [hit._asdict() for hit in hits]})


def write_found(asked: Asked, found: Found, path: Path, beam: int) -> None:
    """Write what was found: a record a query where the file ends in .jsonl, else a trec run.

    Raises
    ------
    GenretError
        The file cannot be written.
    DatasetError
        Two document ids are the same once a trec file writes their blanks.
    """
    if path.suffix == _RECORDS:
        replace_file(path, "".join(f"{line}\n" for line in json_lines(asked, found)).encode())
        return
    name = found.place.name
    ranked = found.dataset[["doc", "score"]].assign_coords(query=asked.ids)
    ranked = ranked.expand_dims(model=[name], beam=[beam])
    write_run(ranked, found.collection.document_ids, path, model=name, beam=beam)
