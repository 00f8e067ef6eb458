"""MS MARCO's files: passages and queries as TSV, judgements in any form of qrels, plain or .gz.

The defaults are the names in collectionandqueries.tar.gz. Its test queries are not judged, so that
the small dev set, by which papers report, is the test split.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import Field

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.lines import hash_of, malformed, read_lines
from genret_dask.datasets.qrels import place_of, read_qrels
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.errors import DatasetError
from genret_dask.storage.fingerprint import fingerprint

_ROW = "an id, a tab and a text"

Files = tuple[Path, Path]
"""Queries and qrels of a split."""


def _of(split: str) -> Files:
    return Path(f"queries.{split}.tsv"), Path(f"qrels.{split}.tsv")


class MsmarcoDataset(Dataset):
    """A folder of MS MARCO's passage files, plain or .gz."""

    kind: Literal["msmarco"] = "msmarco"
    path: Path = Field(description="a folder, in which the other files lie")
    collection: Path = Field(Path("collection.tsv"), description="passages: id and text")
    train: Files | None = Field(
        _of("train"), description="queries and qrels; none where neither usual file is there"
    )
    dev: Files | None = Field(None, description="queries and qrels")
    test: Files = Field(_of("dev.small"), description="queries and qrels")
    allow_unknown_ids: bool = Field(False, description="drop qrels that name unknown ids")

    needs = "collection.tsv, and for each split a TSV file of queries and one of qrels"
    example = """dataset:
  kind: msmarco
  path: data/msmarco          # collection.tsv, queries.train.tsv, qrels.train.tsv, ...
  test: [queries.dev.small.tsv, qrels.dev.small.tsv]   # the default"""

    @property
    def title(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def main_metric(self) -> str:
        """MRR@10, as the leaderboard has it."""
        return "mrr@10"

    def read(self, into: CollectionWriter) -> None:
        """Read the passages, then the queries and the judgements of each split.

        A file of queries that two splits name is read once.

        Raises
        ------
        DatasetError
            A file is missing, a line is malformed (file and line are named), or there are no
            passages or queries.
        """
        into.allow_unknown_ids = self.allow_unknown_ids
        for _, name, text in _rows(self._found(self.collection)):
            into.document(name, "", text)
        for path in self._queries:
            for _, name, text in _rows(path):
                into.query(name, text)
        for split, (_, qrels) in self._splits.items():
            for one in read_qrels(qrels):
                into.judge(split, one.query, one.document, one.grade)

    def place(self, what: str, row: int) -> str:
        """See `Dataset.place`: the file and the line."""
        if what == "judgement":
            return place_of([qrels for _, qrels in self._splits.values()], row)
        paths = [self._found(self.collection)] if what == "document" else self._queries
        places = ((path, number) for path in paths for number, *_ in _rows(path))
        path, number = next(islice(places, row, None))
        return f"{path}, line {number}"

    def fingerprint(self) -> str:
        """Hash of the files' bytes by their role, and of the settings; names play no part."""
        splits = {split: [*map(hash_of, files)] for split, files in self._splits.items()}
        corpus = hash_of(self._found(self.collection))
        return fingerprint("msmarco", corpus, splits, self.allow_unknown_ids)

    @property
    def _splits(self) -> dict[str, list[Path]]:
        """The files of queries and qrels of each split."""
        found = {split: [*map(self._found, names)] for split, names in self.by_split().items()}
        if self.train == _of("train") and not any(map(Path.exists, found["train"])):
            del found["train"]
        return found

    @property
    def _queries(self) -> list[Path]:
        """The files of queries, each once."""
        return list(dict.fromkeys(queries for queries, _ in self._splits.values()))

    def _found(self, name: Path) -> Path:
        """Where a file of the folder is: of a plain and a .gz file the plain one counts."""
        plain = self.path / name
        packed = plain.with_name(f"{plain.name}.gz")
        return packed if packed.is_file() and not plain.is_file() else plain


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, id and text."""
    number = 0
    for number, line in read_lines(path):
        cells = line.split("\t")
        if len(cells) != 2:
            raise malformed(path, number, f"{len(cells)} columns", _ROW)
        if not cells[0]:
            raise malformed(path, number, "no id", _ROW)
        yield number, cells[0], cells[1]
    if not number:
        raise DatasetError(f"{path} is empty", expected=f"lines of {_ROW}")
