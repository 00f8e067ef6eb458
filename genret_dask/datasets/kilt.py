"""KILT files: pages as JSON lines or TSV, and each split's questions with answers and provenance.

The page of a provenance is relevant (Petroni et al., 2021, arXiv 2009.02252); the answers are for
the metric `answer_hits@k`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.columns import encodable
from genret_dask.datasets.dpr import read_passages
from genret_dask.datasets.lines import Fields, hash_of, read_records
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.errors import DatasetError
from genret_dask.storage.fingerprint import fingerprint

_ID = ("wikipedia_id", "_id", "id", "docid", "doc_id")
_TITLE = ("wikipedia_title", "title")
_TEXT = ("text", "contents", "passage")

_PAGE = 'a line like {"wikipedia_id": "290", "wikipedia_title": "A", "text": ["...", "..."]}'
_QUESTION = (
    'a line like {"id": "q1", "input": "...", "output": '
    '[{"answer": "...", "provenance": [{"wikipedia_id": "290"}]}]}'
)


class Question(NamedTuple):
    """A line of a split's file."""

    line: int
    name: str
    text: str
    answers: tuple[str, ...]
    pages: tuple[str, ...]


class KiltDataset(Dataset):
    """KILT's pages and questions; a page of a question's provenance is relevant."""

    kind: Literal["kilt"] = "kilt"
    pages: Path = Field(description="JSON lines (wikipedia_id, wikipedia_title, text), or TSV")
    train: Path | None = None
    dev: Path | None = None
    test: Path = Field(description="a file with outputs, as KILT's dev files have them")
    allow_unknown_ids: bool = Field(False, description="drop provenance of unknown pages")

    needs = "pages as jsonl or tsv (id, text, title), questions as KILT's jsonl, plain or .gz"
    example = """dataset:
  kind: kilt
  pages: data/kilt_knowledgesource.json
  train: data/nq-train-kilt.jsonl       # train and dev are optional
  test: data/nq-dev-kilt.jsonl"""

    @property
    def title(self) -> str:
        """The name of the pages' file."""
        return self.pages.name.partition(".")[0]

    def read(self, into: CollectionWriter) -> None:
        """Read the pages, then the questions, answers and provenance of each split.

        Raises
        ------
        DatasetError
            A file is missing, a line is malformed (file and line are named), or there are no pages
            or questions.
        """
        into.allow_unknown_ids = self.allow_unknown_ids
        for _, name, title, text in _read_pages(self.pages):
            into.document(name, title, text)
        for split, path in self.by_split().items():
            for one in _read_questions(path):
                into.query(one.name, one.text, one.answers)
                for page in one.pages:
                    into.judge(split, one.name, page)

    def place(self, what: str, row: int) -> str:
        """See `Dataset.place`: the file and the line."""
        if what == "document":
            number, *_ = next(islice(_read_pages(self.pages), row, None))
            return f"{self.pages}, line {number}"
        places = (
            f"{path}, line {one.line}"
            for path in self.by_split().values()
            for one in _read_questions(path)
            for _ in (one.pages if what == "judgement" else [one.name])
        )
        return next(islice(places, row, None))

    def fingerprint(self) -> str:
        """Hash of the files' bytes by their role, and of the settings; names play no part."""
        files = {"pages": self.pages, **self.by_split()}
        hashes = {role: hash_of(path) for role, path in files.items()}
        return fingerprint("kilt", hashes, self.allow_unknown_ids)


def _read_pages(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield line number, id, title and text."""
    if ".tsv" in path.suffixes[-2:]:
        for number, name, text, title in read_passages(path):
            yield number, name, title, text
        return
    record = None
    for record in read_records(path, _PAGE):
        name = record.id(_ID)
        yield record.number, name, record.text(_TITLE, optional=True), _text(record)
    if record is None:
        raise DatasetError(f"{path} has no pages", expected=_PAGE)


def _text(record: Fields) -> str:
    """The text of a page: one string, or its paragraphs."""
    if isinstance(record.find(_TEXT)[1], list):
        return "\n".join(paragraph.rstrip("\n") for paragraph in record.texts(_TEXT))
    return record.text(_TEXT)


def _read_questions(path: Path) -> Iterator[Question]:
    record = None
    for record in read_records(path, _QUESTION):
        name, text = record.id(("id", "_id")), record.text(("input",))
        outputs = _objects(record, "output", record.record)
        answers = [one["answer"] for one in outputs if one.get("answer")]
        if not all(isinstance(answer, str) and encodable(answer) for answer in answers):
            raise record.wrong("an answer is not a string")
        provenance = [page for one in outputs for page in _objects(record, "provenance", one)]
        pages = [
            Fields(path, record.number, page, _QUESTION).id(("wikipedia_id",))
            for page in provenance
        ]
        unique = tuple(dict.fromkeys(answers)), tuple(dict.fromkeys(pages))
        yield Question(record.number, name, text, *unique)
    if record is None:
        raise DatasetError(f"{path} has no questions", expected=_QUESTION)


def _objects(record: Fields, name: str, within: dict[str, Any]) -> list[dict[str, Any]]:
    """A list of JSON objects, which may be missing."""
    found = within.get(name) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise record.wrong(f"{name} is not a list of objects")
    return found
