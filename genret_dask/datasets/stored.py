"""A collection as a folder of columns: written while it is read, then mapped by every process.

``documents.arrow`` (id, title, text), ``queries.arrow`` (id, text, answers), ``qrels.arrow``
(split, query row, document row, relevance), ``ids.arrow`` (sorted hashes of the documents' ids,
their rows), of a part of a corpus ``left_out.arrow`` (sorted hashes of the other documents' ids),
and ``collection.json`` (name, version, counts, hash).
Any library that reads Arrow IPC files opens them: `pandas.read_feather`, `polars.read_ipc`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genret_dask.datasets.collection import SPLITS, Collection, Qrels
from genret_dask.datasets.columns import RowWriter, Strings, read_table, write_table
from genret_dask.datasets.keeping import keep_documents, only
from genret_dask.errors import DatasetError, listed
from genret_dask.storage.artefacts import fetched
from genret_dask.storage.layout import TEXTS
from genret_dask.storage.places import beside, writing

logger = logging.getLogger(__name__)

MANIFEST = "collection.json"
_MANIFEST = ("name", "version", "content_hash", "blank")
_FILES = ("documents.arrow", "queries.arrow", "qrels.arrow", "ids.arrow", MANIFEST)
_DOCUMENTS = dict.fromkeys(("id", "title", "text"), pa.string())
_QUERIES = {"id": pa.string(), "text": pa.string(), "answers": pa.list_(pa.string())}
_JUDGED = {"split": pa.int8(), "query": pa.string(), "document": pa.string(), "grade": pa.int32()}
_HASHES = ("hash", "row")
_LEFT_OUT = "left_out.arrow"
_QRELS = {"split": pa.int8(), **dict.fromkeys(("query", "document", "relevance"), pa.int32())}

_FIX = "delete the folder to have it built again"


class CollectionWriter:
    """Take a collection's documents, queries and judgements, in any order, and write them down.

    Parameters
    ----------
    folder : Path
    stack : ExitStack
        Closes the files.

    Attributes
    ----------
    allow_unknown_ids : bool
        Drop judgements of unknown ids with a warning, instead of refusing them.
    blank : list of int
        Rows of the documents without a text.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.allow_unknown_ids = False
        self.blank: list[int] = []
        self._documents = stack.enter_context(RowWriter(folder / _FILES[0], _DOCUMENTS))
        self._queries = stack.enter_context(RowWriter(folder / _FILES[1], _QUERIES))
        self._judged = stack.enter_context(RowWriter(folder / "judged.arrow", _JUDGED))

    def document(self, name: str, title: str, text: str) -> None:
        """Add a document; its title may be empty."""
        if not (title.strip() or text.strip()):
            self.blank.append(self._documents.rows)
        self._documents.add(name, title, text)

    def query(self, name: str, text: str, answers: tuple[str, ...] = ()) -> None:
        """Add a query, and the strings that answer it where the collection has them."""
        self._queries.add(name, text, answers)

    def judge(self, split: str, query: str, document: str, grade: int = 1) -> None:
        """Add a judgement of a split, by ids; a grade above 0 is relevant."""
        if split not in SPLITS:
            raise DatasetError(f"a judgement of split {split!r}", expected=", ".join(SPLITS))
        self._judged.add(SPLITS.index(split), query, document, grade)


def build(
    folder: Path,
    name: str,
    version: str,
    fill: Callable[[CollectionWriter], None],
    place: Callable[[str, int], str] = "{} {}".format,
    kept: int | None = None,
    seed: int = 0,
) -> Collection:
    """Write a collection into a folder, and map it.

    Parameters
    ----------
    fill : callable
        Gives everything to the writer.
    place : callable
        Names the place in the source of "document", "query" or "judgement" and its row, for
        messages.
    kept, seed : int
        How many documents to keep, and which: see `genret_dask.datasets.keeping`. All by default.

    Raises
    ------
    DatasetError
        What `fill` raises; fewer are to be kept than are judged for dev and test; or the collection
        has no documents, an id is repeated or can stand in no TSV file, or judgements name unknown
        ids.
    """
    with writing(folder), ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        writer = CollectionWriter(folder, stack)
        fill(writer)
    documents, queries = (read_table(folder / name) for name in _FILES[:2])
    hashes = Strings(documents["id"]).sort_hashes()
    ids = {"document": Strings(documents["id"], hashes), "query": Strings(queries["id"])}
    for what, column in ids.items():
        if twice := column.repeated():
            first, again = (place(what, row) for row in twice)
            raise DatasetError(
                f"{again}: {what} id {column[twice[0]]!r} again, first at {first}",
                expected=f"unique {what} ids",
            )
    qrels = _resolve(
        read_table(folder / "judged.arrow"), ids, writer.allow_unknown_ids, name, place
    )
    (folder / "judged.arrow").unlink()
    blank = np.array(writer.blank, dtype=np.int64)
    if kept is not None and kept > len(documents):
        logger.warning(
            "%s has %d documents, fewer than the %d to keep: all are kept",
            name,
            len(documents),
            kept,
        )
    if kept is not None and kept < len(documents):
        rows = keep_documents(ids["document"], qrels, kept, seed)
        _keep(folder / _FILES[0], rows)
        whole, hashes = hashes[0], Strings(read_table(folder / _FILES[0])["id"]).sort_hashes()
        write_table(folder / _LEFT_OUT, {"hash": np.setdiff1d(whole, hashes[0])})
        qrels = {split: only(one, rows) for split, one in qrels.items()}
        blank = np.searchsorted(rows, blank[np.isin(blank, rows)])
    with RowWriter(folder / _FILES[2], _QRELS) as file:
        for number, split in enumerate(SPLITS):
            one = qrels[split]
            for row in zip(one.query, one.document, one.relevance, strict=True):
                file.add(number, *map(int, row))
    write_table(folder / _FILES[3], dict(zip(_HASHES, hashes, strict=True)))
    collection = _collection(folder, name, version)
    manifest = {
        "name": name,
        "version": version,
        "content_hash": collection.content_hash,
        "documents": len(collection),
        "queries": len(collection.query_ids),
        "blank": blank.tolist(),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return collection


def _keep(path: Path, rows: np.ndarray) -> None:
    """Write a file of documents anew, with some of its rows; who has mapped it keeps the old."""
    partial, first = beside(path), 0
    with RowWriter(partial, _DOCUMENTS) as file:
        for batch in read_table(path).to_batches():
            start, stop = np.searchsorted(rows, (first, first + len(batch)))
            for row in batch.take(pa.array(rows[start:stop] - first)).to_pylist():
                file.add(*row.values())
            first += len(batch)
    partial.replace(path)


def write(collection: Collection, folder: Path) -> None:
    """Write a collection that is in memory into an empty folder."""
    build(folder, collection.name, collection.version, partial(fill, collection))


def fill(collection: Collection, into: CollectionWriter) -> None:
    """Give a whole collection to a writer."""
    rows = zip(collection.document_ids, collection.titles, collection.texts, strict=True)
    for row in rows:
        into.document(*row)
    for name, text in zip(collection.query_ids, collection.queries, strict=True):
        into.query(name, text, collection.answers.get(name, ()))
    for split, qrels in collection.qrels.items():
        names = collection.query_ids.take(qrels.query)
        for name, document, grade in zip(
            names, collection.document_ids.take(qrels.document), qrels.relevance, strict=True
        ):
            into.judge(split, name, document, int(grade))


def move(source: Path, folder: Path) -> None:
    """Move the files of a collection; who has mapped them keeps them."""
    folder.mkdir(parents=True)
    for name in (*_FILES, _LEFT_OUT):
        if name != _LEFT_OUT or (source / name).exists():
            shutil.move(source / name, folder / name)


def read_artefact(folder: Path) -> Collection:
    """Map the collection of a run directory, its files checked by their hashes."""
    return read(fetched(folder) / TEXTS)


def has_answers(folder: Path) -> bool:
    """Tell whether the collection of a run directory has answers, by the file of its queries alone.

    False where there is no such file, or none that can be read.
    """
    try:
        content = (folder / TEXTS / _FILES[1]).read_bytes()
        answers = pa.ipc.open_file(pa.py_buffer(content)).read_all()["answers"]
    except (OSError, KeyError, pa.ArrowInvalid):
        return False
    return bool(pc.any(pc.greater(pc.list_value_length(answers), 0)).as_py())


def read(folder: Path) -> Collection:
    """Map what `build` or `write` wrote; nothing is read but the judgements and the answers.

    Raises
    ------
    DatasetError
        A file is missing or damaged.
    """
    manifest = _read_manifest(folder / MANIFEST)
    known = {name: manifest[name] for name in ("content_hash", "blank")}
    return _collection(folder, manifest["name"], manifest["version"], known)


def _collection(
    folder: Path, name: str, version: str, known: dict[str, Any] | None = None
) -> Collection:
    documents, queries, qrels = (read_table(folder / name) for name in _FILES[:3])
    answered = queries.filter(pc.greater(pc.list_value_length(queries["answers"]), 0))
    answers = zip(answered["id"].to_pylist(), answered["answers"].to_pylist(), strict=True)
    split, *judged = (column.to_numpy() for column in qrels.columns)
    return Collection(
        name=name,
        version=version,
        document_ids=Strings(documents["id"], _hashes(folder)),
        titles=Strings(documents["title"]),
        texts=Strings(documents["text"]),
        query_ids=Strings(queries["id"]),
        queries=Strings(queries["text"]),
        qrels={
            one: Qrels(*(column[split == number] for column in judged))
            for number, one in enumerate(SPLITS)
        },
        answers={name: tuple(found) for name, found in answers},
        left_out=_left_out(folder),
        known=known,
    )


def _hashes(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Map the sorted hashes of the ids; None in an older collection, without them."""
    path = folder / _FILES[3]
    if not path.exists():
        return None
    table = read_table(path)
    hashes, rows = (table[name].chunk(0).to_numpy() for name in _HASHES)
    return hashes, rows


def _left_out(folder: Path) -> np.ndarray:
    path = folder / _LEFT_OUT
    if not path.exists():
        return np.empty(0, np.uint64)
    return np.asarray(read_table(path)["hash"].chunk(0).to_numpy())


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, Any] = {key: manifest[key] for key in _MANIFEST}
        return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        missing = isinstance(error, FileNotFoundError)
        what = "missing" if missing else f"damaged ({type(error).__name__}: {error})"
        raise DatasetError(
            f"{path} is {what}",
            expected=f"{', '.join(_MANIFEST)} as JSON, as genret-dask wrote them",
            fix=_FIX,
        ) from error


# --- judgements ---------------------------------------------------------------------------------


def _resolve(
    judged: pa.Table,
    ids: dict[str, Strings],
    allow_unknown_ids: bool,
    source: str,
    place: Callable[[str, int], str],
) -> dict[str, Qrels]:
    """Turn judgements by ids into rows, for every split.

    Of a pair that is judged twice the higher grade stays; a warning counts those that differ.

    Raises
    ------
    DatasetError
        A judgement names an id that is not there and `allow_unknown_ids` is not set; otherwise
        such judgements are dropped with a warning.
    """
    split, grade = judged["split"].to_numpy(), judged["grade"].to_numpy()
    rows = {what: column.find(judged[what]) for what, column in ids.items()}
    known = (rows["query"] >= 0) & (rows["document"] >= 0)
    if not known.all():
        unknown = {
            f"{what} {judged[what][int(row)].as_py()!r}": None
            for row in np.flatnonzero(~known)
            for what in ("query", "document")
            if rows[what][row] < 0
        }
        named = listed(list(unknown), 5)
        found = f"{source}: {(~known).sum()} judgements name {len(unknown)} unknown ids: {named}"
        if not allow_unknown_ids:
            first = place("judgement", int(np.flatnonzero(~known)[0]))
            raise DatasetError(
                f"{found}; the first in {first}",
                expected="judgements of ids in the corpus and the queries",
                fix="correct the qrels, or drop those lines by dataset.allow_unknown_ids: true, "
                "which BEIR folders and others have",
            )
        logger.warning("%s; dropped", found)
    qrels = {}
    for number, name in enumerate(SPLITS):
        own = known & (split == number)
        columns = rows["query"][own], rows["document"][own], grade[own]
        qrels[name] = Qrels.from_rows(*columns)
        distinct = len(np.unique(np.stack(columns), axis=1).T) if own.any() else 0
        if twice := distinct - len(qrels[name]):
            logger.warning(
                "%s: %d judgements of the %s split contradict another of the same pair; the higher "
                "grade counts",
                source,
                twice,
                name,
            )
    return qrels
