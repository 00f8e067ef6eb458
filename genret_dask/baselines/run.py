"""The rankings of another system, from a file in trec format: ``query Q0 document rank score tag``.

A query's documents stand by score, in single precision, and of equal scores by descending id: the
order in which trec_eval takes them. The file's ranks mean nothing, as there.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from genret_dask.baselines.base import Baseline, Rankings, Report
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.columns import Strings
from genret_dask.datasets.lines import malformed, read_lines
from genret_dask.errors import DatasetError, listed, meant
from genret_dask.storage.sources import contents, source_hash

_EXPECTED = "query, Q0, document, rank, score and tag, between blanks"
_BLANKS = {quote(chr(code)): chr(code) for code in range(0x3001) if chr(code).isspace()}
_WRITTEN = re.compile("|".join(map(re.escape, _BLANKS)))
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _Ranked:
    """The lines of a run file, in the order of trec_eval within each query.

    Attributes
    ----------
    queries, documents : list of str
        Ids, each once.
    query, document : int32[lines]
        Places in those.
    score : float32[lines]
    """

    queries: list[str]
    documents: list[str]
    query: np.ndarray
    document: np.ndarray
    score: np.ndarray


class RunBaseline(Baseline):
    """The rankings of another system: a run file in trec format, plain or .gz."""

    kind: Literal["run"] = "run"
    path: Path

    @property
    def default_name(self) -> str:
        """The file's name without its suffixes."""
        return self.path.name.removesuffix(".gz").rpartition(".")[0] or self.path.name

    def settings(self) -> dict[str, Any]:
        """See `Baseline.settings`; the file counts by its bytes."""
        return contents(self, "name", "path", bytes=self._digest())

    def refusals(self, collection: Collection) -> Iterator[str]:
        """See `Baseline.refusals`; malformed lines raise `DatasetError`."""
        found = self._read()
        rows = _places(collection.document_ids, found.documents)
        unknown = [found.documents[place] for place in np.flatnonzero(rows < 0)]
        if unknown:
            yield (
                f"{self.path} names {len(unknown):,} documents that the collection lacks: "
                f"{listed(unknown)}"
            )
        if (_places(collection.query_ids, found.queries) < 0).all():
            yield (
                f"{self.path} names none of the collection's queries, but {listed(found.queries)}"
            )

    def remarks(self, collection: Collection, queries: np.ndarray) -> Iterator[str]:
        """See `Baseline.remarks`."""
        there = _places(collection.query_ids, self._read().queries)
        if missing := int(np.isin(queries, there, invert=True).sum()):
            yield (
                f"{self.path} lacks {missing:,} of the {len(queries):,} queries: they count as "
                "queries for which nothing was found"
            )

    def rank(
        self, collection: Collection, queries: np.ndarray, into: Rankings, report: Report
    ) -> None:
        """See `Baseline.rank`."""
        found = self._read()
        rows = _places(collection.document_ids, found.documents)
        names = _places(collection.query_ids, found.queries)
        bounds = np.searchsorted(found.query, np.arange(len(names) + 1))
        place_of = {int(row): place for place, row in enumerate(names) if row >= 0}
        for place, query in enumerate(queries.tolist()):
            if (name := place_of.get(query)) is not None:
                lines = slice(bounds[name], bounds[name + 1])
                into.add(place, rows[found.document[lines]], found.score[lines])
            report((place + 1) / len(queries))

    def _digest(self) -> str:
        try:
            return source_hash(self.path)
        except OSError as error:
            folder = self.path.parent
            names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
            raise DatasetError(
                f"baselines {self.label}: {self.path} cannot be read: {error.strerror}"
                f"{meant(self.path.name, names)}",
                expected="a run file in trec format, plain or .gz",
            ) from error

    def _read(self) -> _Ranked:
        return _parsed(self.path, self._digest())


@lru_cache(maxsize=2)
def _parsed(path: Path, digest: str) -> _Ranked:
    """Read a run file, once as long as its bytes are the same.

    Raises
    ------
    DatasetError
        It has no line, a malformed one, or two of the same query and document.
    """
    queries, documents = dict[str, int](), dict[str, int]()
    columns = query, document, score, line = array("i"), array("i"), array("f"), array("q")
    for number, text in read_lines(path):
        fields = text.split()
        if len(fields) != 6:
            raise malformed(
                path, number, f"{len(fields)} fields", f"{_EXPECTED}; a blank inside an id is %20"
            )
        query.append(queries.setdefault(fields[0], len(queries)))
        document.append(documents.setdefault(fields[2], len(documents)))
        score.append(_number(fields[4], path, number))
        line.append(number)
    if not line:
        raise DatasetError(f"{path} holds no line", expected=f"lines of {_EXPECTED}")
    asked, found, scores, lines = (np.frombuffer(one, one.typecode) for one in columns)
    names = list(queries), list(documents)
    _check_pairs(path, names, asked, found, lines)
    by_id = np.empty(len(documents), dtype=np.int64)
    by_id[sorted(documents.values(), key=[one.encode() for one in documents].__getitem__)] = (
        np.arange(len(documents))
    )
    order = np.lexsort((-by_id[found], -scores, asked))
    return _Ranked(*names, asked[order], found[order], scores[order])


def _check_pairs(
    path: Path,
    names: tuple[list[str], list[str]],
    query: np.ndarray,
    document: np.ndarray,
    line: np.ndarray,
) -> None:
    """Refuse two scores of one pair."""
    pair = query.astype(np.int64) * len(names[1]) + document
    order = np.argsort(pair, kind="stable")
    again = np.flatnonzero(pair[order[1:]] == pair[order[:-1]])
    if len(again):
        here = again[np.argmin(order[again + 1])]
        first, second = order[here], order[here + 1]
        raise malformed(
            path,
            int(line[second]),
            f"document {names[1][document[second]]} again for query {names[0][query[second]]}, "
            f"as in line {line[first]}",
            "one score for each query and document",
        )


def _number(text: str, path: Path, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:
        raise malformed(path, line, f"the score {text!r}", f"a number; {_EXPECTED}")
    return value


def _places(ids: Strings, names: list[str]) -> np.ndarray:
    """Rows of ids as a trec file has them, blanks written as in a URL; -1 where there is none."""
    rows = ids.find(names)
    unknown = np.flatnonzero(rows < 0)
    meant = [_WRITTEN.sub(lambda one: _BLANKS[one.group()], names[place]) for place in unknown]
    rows[unknown] = ids.find(meant)
    return rows
