"""DPR files: passages as TSV (id, text, title) and questions with their answers as CSV.

These question files judge no passage. As in DPR's evaluation (Karpukhin et al., 2020,
arXiv 2004.04906), a passage is relevant to a question when its text holds one of the answers,
token by token: NFD-normalised, letters and digits in runs, every other visible character a token
of its own, case ignored.
"""

from __future__ import annotations

import ast
import csv
import logging
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.lines import hash_of, malformed, read_lines
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.errors import DatasetError
from genret_dask.storage.arrays import parsed
from genret_dask.storage.fingerprint import fingerprint

logger = logging.getLogger(__name__)

_PASSAGE = "id, text and title, separated by tabs"
_QUESTION = "a question, a tab and a list of answers such as ['Paris', 'Paris, France']"


class DprDataset(Dataset):
    """DPR's passages and questions; a passage that holds an answer is relevant."""

    kind: Literal["dpr"] = "dpr"
    passages: Path
    train: Path | None = None
    dev: Path | None = None
    test: Path

    needs = "passages as tsv (id, text, title), questions and answers as csv, plain or .gz"
    example = """dataset:
  kind: dpr
  passages: data/psgs_w100.tsv
  dev: data/nq-dev.qa.csv     # train and dev are optional
  test: data/nq-test.qa.csv"""

    @property
    def title(self) -> str:
        """The name of the passages' file."""
        return self.passages.name.partition(".")[0]

    @property
    def main_metric(self) -> str:
        """Top-20 accuracy, as the DPR paper reports it."""
        return "success@20"

    def read(self, into: CollectionWriter) -> None:
        """Read the questions of each split, then the passages; judge them by their answers.

        Questions that no passage answers stay, without judgements; the log says how many. Query ids
        are `<split>-<row>`, rows from 0.

        Raises
        ------
        DatasetError
            A file is missing, a line is malformed (file and line are named), or there are no
            passages.
        """
        names: list[tuple[str, str]] = []
        answers: list[tuple[str, ...]] = []
        for split, path in self.by_split().items():
            for row, (question, found) in enumerate(_read_questions(path)):
                name = f"{split}-{row}"
                into.query(name, question, found)
                names.append((split, name))
                answers.append(found)
        holders = Answers(answers)
        answered = np.zeros(len(names), dtype=bool)
        for _, passage, text, title in read_passages(self.passages):
            into.document(passage, title, text)
            for row in sorted(holders.asked_by(text)):
                into.judge(*names[row], passage)
                answered[row] = True
        if not answered.all():
            logger.info(
                "%d of %d questions have no passage with an answer in %s",
                (~answered).sum(),
                len(names),
                self.passages,
            )

    def place(self, what: str, row: int) -> str:
        """See `Dataset.place`: the file and the line."""
        number, *_ = next(islice(read_passages(self.passages), row, None))
        return f"{self.passages}, line {number}"

    def fingerprint(self) -> str:
        """Hash of the files' bytes by their role; names and paths play no part."""
        files = {"passages": self.passages, **self.by_split()}
        return fingerprint("dpr", {role: hash_of(path) for role, path in files.items()})


# --- the files --------------------------------------------------------------------------------


def read_passages(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield line number, id, text and title of a TSV file; a heading begins with `id`."""
    name = None
    for number, cells in _rows(path, _PASSAGE):
        if len(cells) != 3:
            raise malformed(path, number, f"{len(cells)} columns", _PASSAGE)
        if name is None and cells[0] == "id":
            continue
        name, text, title = cells
        if not name:
            raise malformed(path, number, "no id", _PASSAGE)
        yield number, name, text, title
    if name is None:
        raise DatasetError(f"{path} has no passages", expected=_PASSAGE)


def _read_questions(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, cells in _rows(path, _QUESTION):
        if len(cells) != 2:
            raise malformed(path, number, f"{len(cells)} columns", _QUESTION)
        try:
            answers = parsed(partial(ast.literal_eval, cells[1].strip()))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            answers = None
        if not isinstance(answers, list | tuple) or not all(isinstance(a, str) for a in answers):
            raise malformed(path, number, f"answers are {cells[1][:60]!r}", _QUESTION)
        yield cells[0], tuple(answers)


def _rows(path: Path, expected: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells); a row is one line, so that a stray quote can't eat the next."""
    for number, line in read_lines(path):
        try:
            yield number, next(csv.reader([line], delimiter="\t"))
        except csv.Error as error:
            raise malformed(path, number, str(error), expected) from error


# --- which passage holds which answer ---------------------------------------------------------


class Answers:
    """Find which questions a text answers, by the tokens of their answers.

    Answers are looked up by their first token, then, at each of the lengths that answers with this
    token have, as a whole.
    """

    def __init__(self, answers: Sequence[Iterable[str]]) -> None:
        self._askers: dict[tuple[str, ...], set[int]] = {}
        for row, strings in enumerate(answers):
            for string in strings:
                if wanted := tuple(tokenize(string)):
                    self._askers.setdefault(wanted, set()).add(row)
        by_token = groupby(sorted(self._askers, key=lambda one: one[0]), key=lambda one: one[0])
        self._lengths = {token: sorted({len(one) for one in group}) for token, group in by_token}

    def asked_by(self, text: str) -> set[int]:
        """Return the rows of the questions of which a text holds an answer."""
        tokens = tokenize(text)
        found: set[int] = set()
        for position, token in enumerate(tokens):
            for length in self._lengths.get(token, ()):
                found.update(self._askers.get(tuple(tokens[position : position + length]), ()))
        return found


def tokenize(text: str) -> list[str]:
    """Tokens as DPR's SimpleTokenizer sees them, in lower case.

    Examples
    --------
    >>> tokenize("U.S. élan")[-1] == unicodedata.normalize("NFD", "élan")
    True
    """
    if text.isascii():
        return _ASCII.findall(text.lower())
    found = _unicode_pattern().findall(unicodedata.normalize("NFD", text))
    return [token.lower() for token in found]


_ASCII = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")


@cache
def _unicode_pattern() -> re.Pattern[str]:
    r"""`[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]`, which the standard library can't spell."""
    kinds = {"L": "w", "N": "w", "M": "w", "Z": " ", "C": " "}
    ranges: dict[str, list[str]] = {"w": [], " ": []}
    start = 0
    for kind, run in groupby(
        range(sys.maxunicode + 1), key=lambda code: kinds.get(unicodedata.category(chr(code))[0])
    ):
        end = start + sum(1 for _ in run)
        if kind is not None:
            ranges[kind].append(f"\\U{start:08x}-\\U{end - 1:08x}")
        start = end
    word, gap = "".join(ranges["w"]), "".join(ranges[" "])
    return re.compile(f"[{word}]+|[^{word}{gap}]")
