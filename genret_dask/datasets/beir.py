"""BEIR folders: corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv, plain or .gz.

`answers.jsonl` (`{"_id": query id, "answers": [...]}`) is an optional addition of ours.
"""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Iterator
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.collection import SPLITS, Collection
from genret_dask.datasets.columns import encodable
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.errors import DatasetError
from genret_dask.storage.fingerprint import fingerprint
from genret_dask.storage.sources import source_hash

logger = logging.getLogger(__name__)

Judgement = tuple[str, str, int]

LONGEST_LINE = 2**26
"""Bytes; a compressed file can hold a line that no memory does."""

_HEADERS = {"queryid", "qid", "query"}  # without blanks, dashes and the like


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
                for query, document, grade in _read_qrels(path):
                    into.judge(split, query, document, grade)

    def place(self, what: str, row: int) -> str:
        """See `Dataset.place`: the file and the line."""
        path = _files(self.path)["corpus.jsonl" if what == "document" else "queries.jsonl"]
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


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file; `DatasetError` where it cannot be read."""
    try:
        return source_hash(path)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}", expected="a readable file") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of the lines of a plain or .gz UTF-8 file.

    Blank lines are left out. Only a line feed ends a line: JSON strings and TSV cells may hold
    every other separator.

    Raises
    ------
    DatasetError
        The file is missing, unreadable, a broken gzip file, or not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(_bounded(file), start=1):
                if len(line) > LONGEST_LINE:
                    raise malformed(
                        path,
                        number,
                        f"longer than {LONGEST_LINE // 2**20} MiB",
                        "a record a line, ended by a line feed",
                    )
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise malformed(path, number, f"not UTF-8 ({error.reason})", "text in UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(
            f"{path} is damaged after line {number}: {error}",
            expected="a complete gzip file",
            fix="download or compress it again",
        ) from error
    except OSError as error:
        raise DatasetError(
            f"{path}: {error.strerror or error}", expected="a readable file"
        ) from error


def _bounded(file: gzip.GzipFile | BufferedReader) -> Iterator[bytes]:
    """Lines, none of which takes more memory than one that is refused."""
    while line := file.readline(LONGEST_LINE + 1):
        yield line


def malformed(path: Path, number: int, problem: str, expected: str) -> DatasetError:
    """The error for one line of a file."""
    return DatasetError(f"{path}, line {number}: {problem}", expected=expected)


# --- the lines --------------------------------------------------------------------------------


def read_corpus(path: Path, into: CollectionWriter) -> None:
    """Read the documents of a file, plain or .gz.

    Raises
    ------
    DatasetError
        It cannot be read, has no documents, or a line is malformed; file and line are named.
    """
    expected = 'a line like {"_id": "d1", "title": "", "text": "..."}'
    name = None
    for name, number, record in _records(path, expected):
        title = _string(path, number, record, "title", expected, default="")
        into.document(name, title, _string(path, number, record, "text", expected))
    if name is None:
        raise DatasetError(f"{path} has no documents", expected=expected)


def _read_queries(path: Path, answers: dict[str, tuple[str, ...]], into: CollectionWriter) -> None:
    expected = 'a line like {"_id": "q1", "text": "..."}'
    strangers = {*answers}
    name = None
    for name, number, record in _records(path, expected):
        text = _string(path, number, record, "text", expected)
        into.query(name, text, answers.get(name, ()))
        strangers.discard(name)
    if name is None:
        raise DatasetError(f"{path} has no queries", expected=expected)
    if strangers:
        logger.warning("%s: %d answers are to unknown queries; dropped", path, len(strangers))


def _read_answers(path: Path) -> dict[str, tuple[str, ...]]:
    expected = 'a line like {"_id": "q1", "answers": ["...", "..."]}'
    answers = {}
    for name, number, record in _records(path, expected):
        found = record.get("answers")
        if not isinstance(found, list) or not all(
            isinstance(text, str) and encodable(text) for text in found
        ):
            raise malformed(path, number, "answers is not a list of strings", expected)
        answers[name] = tuple(found)
    return answers


def _records(path: Path, expected: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield (id, line number, record)."""
    for number, line in read_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise malformed(path, number, f"not JSON ({error})", expected) from error
        if not isinstance(record, dict):
            raise malformed(path, number, f"a JSON {type(record).__name__}", expected)
        name = record.get("_id")
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if name is None or name == "":
            raise malformed(path, number, "no _id", expected)
        if not (isinstance(name, str) and encodable(name)) or any(c in name for c in "\t\n\r"):
            raise malformed(path, number, f"_id is {name!r}", "a string without tab or line break")
        yield name, number, record


def _string(
    path: Path,
    number: int,
    record: dict[str, Any],
    key: str,
    expected: str,
    default: str | None = None,
) -> str:
    value = record.get(key, default)
    if value is None and default is None:
        raise malformed(path, number, f"no {key}", expected)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise malformed(path, number, f"{key} is a {type(value).__name__}", expected)
    if not encodable(value):
        raise malformed(path, number, f"{key} holds half a character", "no lone surrogates")
    return value


def _read_qrels(path: Path) -> Iterator[Judgement]:
    expected = "query id, document id and a whole-number score, separated by tabs"
    first = True
    for number, line in read_lines(path):
        cells = line.split("\t")
        if len(cells) != 3:
            raise malformed(path, number, f"{len(cells)} columns", expected)
        grade = _grade(cells[2])
        if grade is None:
            if first and "".join(filter(str.isalnum, cells[0].lower())) in _HEADERS:
                first = False
                continue
            raise malformed(path, number, f"score {cells[2][:40]!r}", expected)
        first = False
        yield cells[0], cells[1], grade


def _grade(text: str) -> int | None:
    """A relevance grade, also written as 1.0; None for what is not a 32-bit whole number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() and abs(value) < 2**31 else None
