"""BEIR folders: corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv, plain or .gz.

`answers.jsonl` (`{"_id": query id, "answers": [...]}`) is an optional addition of ours.
"""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.collection import SPLITS, Collection, Qrels, encodable
from genret_dask.errors import DatasetError, listed
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

    def load(self) -> Collection:
        """Load a BEIR folder.

        Raises
        ------
        DatasetError
            The folder or a file of it is missing, a line is malformed (file and line are named), an
            id is repeated, the corpus is empty, or judgements name unknown ids and
            `allow_unknown_ids` is not set.
        """
        return read_folder(
            self.path, version=self.fingerprint(), allow_unknown_ids=self.allow_unknown_ids
        )

    def fingerprint(self) -> str:
        """Hash of the bytes of the folder's files and of the settings; the path plays no part."""
        hashes = {name: hash_of(path) for name, path in sorted(_files(self.path).items())}
        return fingerprint("beir", hashes, self.allow_unknown_ids)


def read_folder(
    folder: Path, *, version: str, name: str | None = None, allow_unknown_ids: bool = False
) -> Collection:
    """Load a BEIR folder under a name (the folder's, unless given) and a version."""
    files = _files(folder)
    document_ids, titles, texts = _read_corpus(files["corpus.jsonl"])
    query_ids, queries = _read_queries(files["queries.jsonl"])
    judgements = {
        split: list(_read_qrels(path))
        for split in SPLITS
        if (path := files.get(f"qrels/{split}.tsv")) is not None
    }
    answers = _read_answers(files["answers.jsonl"]) if "answers.jsonl" in files else {}
    strangers = len(answers.keys() - set(query_ids))
    if strangers:
        logger.warning("%s: %d answers are to unknown queries; dropped", folder, strangers)
        answers = {name: answers[name] for name in query_ids if name in answers}
    return Collection(
        name=name or folder.resolve().name,
        version=version,
        document_ids=document_ids,
        titles=titles,
        texts=texts,
        query_ids=query_ids,
        queries=queries,
        qrels=resolve_judgements(
            judgements,
            query_ids,
            document_ids,
            allow_unknown_ids=allow_unknown_ids,
            source=str(folder),
        ),
        answers=answers,
    )


def resolve_judgements(
    judgements: Mapping[str, list[Judgement]],
    query_ids: tuple[str, ...],
    document_ids: tuple[str, ...],
    *,
    allow_unknown_ids: bool,
    source: str,
) -> dict[str, Qrels]:
    """Turn (query id, document id, grade) into rows, for every split.

    Of a pair that is judged twice the higher grade stays; a warning counts those that differ.

    Raises
    ------
    DatasetError
        A judgement names an id that is not there and `allow_unknown_ids` is not set; otherwise
        such judgements are dropped with a warning.
    """
    query_row = {name: row for row, name in enumerate(query_ids)}
    document_row = {name: row for row, name in enumerate(document_ids)}
    qrels = {}
    unknown: dict[str, None] = {}
    dropped = 0
    for split in SPLITS:
        rows = []
        for query, document, grade in judgements.get(split, ()):
            missing = [f"query {query!r}"] if query not in query_row else []
            missing += [f"document {document!r}"] if document not in document_row else []
            if missing:
                dropped += 1
                unknown.update(dict.fromkeys(missing))
            else:
                rows.append((query_row[query], document_row[document], grade))
        qrels[split] = Qrels.from_rows(*([row[column] for row in rows] for column in range(3)))
        if twice := len(set(rows)) - len(qrels[split]):
            logger.warning(
                "%s: %d judgements of the %s split contradict another of the same pair; the higher "
                "grade counts",
                source,
                twice,
                split,
            )
    if unknown:
        named = listed(list(unknown), 5)
        found = f"{source}: {dropped} judgements name {len(unknown)} unknown ids: {named}"
        if not allow_unknown_ids:
            raise DatasetError(
                found,
                expected="judgements of ids in the corpus and the queries",
                fix="correct the qrels, or set dataset.allow_unknown_ids: true to drop those lines",
            )
        logger.warning("%s; dropped", found)
    return qrels


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


def _read_corpus(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    expected = 'a line like {"_id": "d1", "title": "", "text": "..."}'
    ids, titles, texts = [], [], []
    for name, number, record in _records(path, expected):
        ids.append(name)
        titles.append(_string(path, number, record, "title", expected, default=""))
        texts.append(_string(path, number, record, "text", expected))
    if not ids:
        raise DatasetError(f"{path} has no documents", expected=expected)
    return tuple(ids), tuple(titles), tuple(texts)


def _read_queries(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    expected = 'a line like {"_id": "q1", "text": "..."}'
    rows = [
        (name, _string(path, number, record, "text", expected))
        for name, number, record in _records(path, expected)
    ]
    if not rows:
        raise DatasetError(f"{path} has no queries", expected=expected)
    ids, texts = zip(*rows, strict=True)
    return ids, texts


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
    """Yield (id, line number, record), every id once."""
    first: dict[str, int] = {}
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
        if name in first:
            raise malformed(
                path, number, f"_id {name!r} again, first on line {first[name]}", "unique ids"
            )
        first[name] = number
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
