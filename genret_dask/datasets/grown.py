"""A finished run's collection with documents that came later."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genret_dask.datasets import stored
from genret_dask.datasets.base import Dataset
from genret_dask.datasets.beir import BeirDataset, read_corpus
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.lines import hash_of, read_lines
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.errors import DatasetError
from genret_dask.storage.artefacts import RECORD
from genret_dask.storage.fingerprint import fingerprint
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.records import read_record


class GrownDataset(Dataset):
    """The collection of a finished run, and documents that are added to it."""

    kind: Literal["grown"] = "grown"
    run: Path = Field(description="the run whose collection grows")
    path: Path = Field(
        description="what is added: documents as in a BEIR folder's corpus.jsonl, or such a "
        "folder, whose queries and qrels are added too"
    )

    needs = "a finished run, and documents like those of a BEIR folder's corpus.jsonl"
    example = """dataset:
  kind: grown
  run: runs/scifact
  path: data/new.jsonl          # {"_id": "d9", "title": "", "text": "..."} a line"""

    @property
    def title(self) -> str:
        """The run, and what is added."""
        return f"{self.run.name} and {self.path.name}"

    def read(self, into: CollectionWriter) -> None:
        """Read the run's collection, then what is added: its documents stand behind the others.

        Raises
        ------
        DatasetError
            There is no such collection, or what is added is missing or malformed.
        """
        self._known()
        stored.fill(self._collection(), into)
        if self.path.is_dir():
            self._added().read(into)
        else:
            read_corpus(self.path, into)

    def place(self, what: str, row: int) -> str:
        """See `Dataset.place`."""
        known = self._collection()
        counts = {
            "document": len(known),
            "query": len(known.query_ids),
            "judgement": sum(map(len, known.qrels.values())),
        }
        count = counts[what]
        if row < count:
            return f"{what} {row + 1} of {self.run}"
        if self.path.is_dir():
            return self._added().place(what, row - count)
        number, _ = next(islice(read_lines(self.path), row - count, None))
        return f"{self.path}, line {number}"

    def fingerprint(self) -> str:
        """Hash of the run's collection and of the files that are added."""
        added = self._added().fingerprint() if self.path.is_dir() else hash_of(self.path)
        return fingerprint("grown", self._known()["content_hash"], added)

    def facts(self) -> dict[str, Any]:
        """See `Dataset.facts`: how many documents the run has; those behind them are added."""
        return {"documents_before": len(self._collection())}

    def _added(self) -> BeirDataset:
        return BeirDataset(path=self.path)

    def _collection(self) -> Collection:
        return stored.read_artefact(RunLayout(self.run).collection)

    def _known(self) -> dict[str, Any]:
        folder = RunLayout(self.run).collection
        record = read_record(folder / RECORD)
        if record is None:
            raise DatasetError(
                f"dataset.run: {self.run} has no collection",
                expected="the directory of a finished run, as runs/NAME",
            )
        return record
