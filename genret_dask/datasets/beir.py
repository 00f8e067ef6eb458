"""BEIR folders: corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv, plain or .gz.

Fields may have the other names below, and qrels any form of `genret_dask.datasets.qrels`.
`answers.jsonl` (`{"_id": query id, "answers": [...]}`) is an optional addition of ours.
"""

from __future__ import annotations

import json
import logging
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import Field

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.collection import SPLITS, Collection
from genret_dask.datasets.lines import hash_of, read_lines, read_records
from genret_dask.datasets.qrels import place_of, read_qrels
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.errors import DatasetError
from genret_dask.storage.fingerprint import fingerprint

logger = logging.getLogger(__name__)

DOCUMENT_ID = ("_id", "id", "docid", "doc_id")
DOCUMENT_TEXT = ("text", "contents", "passage")
QUERY_ID = ("_id", "id", "qid", "query_id")
QUERY_TEXT = ("text", "query", "question", "contents")
"""Names of fields, of which the first that a record has counts."""


class BeirDataset(Dataset):
    """A BEIR folder, plain or .gz."""

    kind: Literal["beir"] = "beir"
    path: Path
    allow_unknown_ids: bool = Field(False, description="drop qrels that name unknown ids")

    needs = "corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv; answers.jsonl optional"
    example = """dataset:
  kind: beir
  path: data/scifact
  allow_unknown_ids: false    # true drops judgements of unknown ids"""

    @property
    def title(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def read(self, into: CollectionWriter) -> None:
        """Read a BEIR folder.

        Raises
        ------
        DatasetError
            The folder or a file of it is missing, a line is malformed (file and line are named), or
            there are no documents or queries.
        """
        files = _files(self.path)
        into.allow_unknown_ids = self.allow_unknown_ids
        read_corpus(files["corpus.jsonl"], into)
        answers = _read_answers(files["answers.jsonl"]) if "answers.jsonl" in files else {}
        _read_queries(files["queries.jsonl"], answers, into)
        for split in SPLITS:
            if (path := files.get(f"qrels/{split}.tsv")) is not None:
                for one in read_qrels(path):
                    into.judge(split, one.query, one.document, one.grade)

    def place(self, what: str, row: int) -> str:
        """See `Dataset.place`: the file and the line."""
        files = _files(self.path)
        if what == "judgement":
            qrels = (files.get(f"qrels/{split}.tsv") for split in SPLITS)
            return place_of([path for path in qrels if path is not None], row)
        path = files["corpus.jsonl" if what == "document" else "queries.jsonl"]
        number, _ = next(islice(read_lines(path), row, None))
        return f"{path}, line {number}"

    def fingerprint(self) -> str:
        """Hash of the bytes of the folder's files and of the settings; the path plays no part."""
        hashes = {name: hash_of(path) for name, path in sorted(_files(self.path).items())}
        return fingerprint("beir", hashes, self.allow_unknown_ids)


def write_folder(collection: Collection, folder: Path) -> None:
    """Write a collection as a BEIR folder, which must not be there yet."""
    (folder / "qrels").mkdir(parents=True)
    documents = zip(collection.document_ids, collection.titles, collection.texts, strict=True)
    queries = zip(collection.query_ids, collection.queries, strict=True)
    records = {
        "corpus": ({"_id": name, "title": title, "text": text} for name, title, text in documents),
        "queries": ({"_id": name, "text": text} for name, text in queries),
        "answers": ({"_id": name, "answers": one} for name, one in collection.answers.items()),
    }
    for name, found in records.items():
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in found)
    for split, qrels in collection.qrels.items():
        names = collection.query_ids.take(qrels.query), collection.document_ids.take(qrels.document)
        with open(folder / "qrels" / f"{split}.tsv", "w", encoding="utf-8") as file:
            file.write("query-id\tcorpus-id\tscore\n")
            for query, document, grade in zip(*names, qrels.relevance, strict=True):
                file.write(f"{query}\t{document}\t{grade}\n")


# --- the files --------------------------------------------------------------------------------


def _files(folder: Path) -> dict[str, Path]:
    """The files of a folder by their plain names; of a plain and a .gz file the plain one counts.

    Raises
    ------
    DatasetError
        The folder, its corpus, its queries, or every qrels file is missing.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"{folder} is {'not a folder' if folder.exists() else 'missing'}",
            expected="a BEIR folder: corpus.jsonl, queries.jsonl, qrels/test.tsv (plain or .gz)",
            fix="check dataset.path; relative paths start at the current directory",
        )
    qrels = [f"qrels/{split}.tsv" for split in SPLITS]
    names = ["corpus.jsonl", "queries.jsonl", "answers.jsonl", *qrels]
    found = {
        name: path
        for name in names
        for path in (folder / f"{name}.gz", folder / name)
        if path.is_file()
    }
    for name in names[:2]:
        if name not in found:
            raise DatasetError(f"{folder} has no {name}", expected=f"{name} or {name}.gz")
    if not any(name in found for name in qrels):
        raise DatasetError(
            f"{folder} has no qrels",
            expected="at least one of " + ", ".join(qrels) + ", plain or .gz",
        )
    return found


# --- the lines --------------------------------------------------------------------------------


def read_corpus(path: Path, into: CollectionWriter) -> None:
    """Read the documents of a file, plain or .gz.

    Raises
    ------
    DatasetError
        It cannot be read, has no documents, or a line is malformed; file and line are named.
    """
    expected = 'a line like {"_id": "d1", "title": "", "text": "..."}'
    record = None
    for record in read_records(path, expected):
        title = record.text(("title",), optional=True)
        into.document(record.id(DOCUMENT_ID), title, record.text(DOCUMENT_TEXT))
    if record is None:
        raise DatasetError(f"{path} has no documents", expected=expected)


def _read_queries(path: Path, answers: dict[str, tuple[str, ...]], into: CollectionWriter) -> None:
    expected = 'a line like {"_id": "q1", "text": "..."}'
    strangers = {*answers}
    record = None
    for record in read_records(path, expected):
        name = record.id(QUERY_ID)
        into.query(name, record.text(QUERY_TEXT), answers.get(name, ()))
        strangers.discard(name)
    if record is None:
        raise DatasetError(f"{path} has no queries", expected=expected)
    if strangers:
        logger.warning("%s: %d answers are to unknown queries; dropped", path, len(strangers))


def _read_answers(path: Path) -> dict[str, tuple[str, ...]]:
    expected = 'a line like {"_id": "q1", "answers": ["...", "..."]}'
    return {
        record.id(QUERY_ID): record.texts(("answers",)) for record in read_records(path, expected)
    }
