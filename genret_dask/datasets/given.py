"""Training pairs of a user's own files: pseudo-queries, each with the document that it asks for.

``docid<TAB>query`` a line, or JSON lines; plain or .gz. They are read once, into columns that every
training maps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from genret_dask.datasets.collection import Collection
from genret_dask.datasets.columns import RowWriter, Strings, read_table
from genret_dask.datasets.lines import Fields, malformed, read_lines
from genret_dask.errors import DatasetError
from genret_dask.storage.arrays import read_array

logger = logging.getLogger(__name__)

FILES = ("text.arrow", "document.npy")
"""The columns of texts and of the rows of their documents."""

_DOCUMENT = ("doc_id", "_id", "docid", "id")
_TEXT = ("query", "text")
_EXPECTED = 'a document id, a tab and a query, or {"doc_id": "...", "query": "..."}'
_BLOCK = 2**17  # lines whose ids are looked up together


class GivenPairs(NamedTuple):
    """Columns of equal length, mapped.

    Attributes
    ----------
    document : int32[n]
        Rows of the collection.
    texts : Strings
    """

    document: np.ndarray
    texts: Strings


def read_given(folder: Path) -> GivenPairs:
    """Map the pairs that `write_given` wrote."""
    texts, documents = (folder / name for name in FILES)
    return GivenPairs(read_array(documents), Strings(read_table(texts)["text"]))


def write_given(collection: Collection, files: Iterable[Path], folder: Path) -> Path:
    """Write the pairs of some files into a folder, in their order; return it.

    Raises
    ------
    DatasetError
        A file cannot be read or has no pair, a line is malformed, its query is empty, or there is
        no such document; file and line are named. Pairs of documents that were left out of the
        collection are dropped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "document.raw"
    with RowWriter(folder / FILES[0], {"text": pa.string()}) as texts, open(raw, "wb") as documents:
        for path in files:
            before, lines, dropped = texts.rows, _read(path), 0
            while block := list(islice(lines, _BLOCK)):
                rows = collection.document_ids.find(one.document for one in block)
                strangers = [block[place] for place in np.flatnonzero(rows < 0)]
                of_others = collection.were_left_out([one.document for one in strangers])
                if not of_others.all():
                    unknown = strangers[int(of_others.argmin())]
                    problem = f"{collection.name} has no document {unknown.document!r}"
                    expected = "ids of the collection's documents"
                    raise malformed(path, unknown.line, problem, expected)
                dropped += len(strangers)
                documents.write(rows[rows >= 0].astype(np.int32).tobytes())
                for one, row in zip(block, rows, strict=True):
                    if row >= 0:
                        texts.add(one.text)
            if dropped:
                logger.warning(
                    "%s: %d pairs of documents that dataset.documents leaves out are dropped",
                    path,
                    dropped,
                )
            if texts.rows == before:
                raise DatasetError(
                    f"{path} has no pair" + (" of a document that is kept" if dropped else ""),
                    expected=f"lines of {_EXPECTED}",
                )
    np.save(folder / FILES[1], np.memmap(raw, np.int32, "r"))
    raw.unlink()
    return folder


class _Line(NamedTuple):
    line: int
    document: str
    text: str


def _read(path: Path) -> Iterator[_Line]:
    """Yield the pairs of a file; its first line tells which form all lines have."""
    is_json = None
    for number, line in read_lines(path):
        if is_json is None:
            is_json = line.lstrip().startswith("{")
        if is_json:
            record = Fields.of(path, number, line, _EXPECTED)
            pair = _Line(number, record.id(_DOCUMENT), record.text(_TEXT))
        else:
            cells = line.split("\t")
            if len(cells) != 2:
                raise malformed(path, number, f"{len(cells)} columns", _EXPECTED)
            pair = _Line(number, *cells)
        if not pair.text.strip():
            raise malformed(path, number, "the query is empty", _EXPECTED)
        yield pair
