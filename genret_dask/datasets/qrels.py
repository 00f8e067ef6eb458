"""Files of relevance judgements: three columns as BEIR has them, or the four of TREC.

``query document score`` or ``query 0 document score``, between tabs or blanks, with or without a
heading: a first line is one where its score is no number, whatever words it uses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from genret_dask.datasets.lines import malformed, read_lines

logger = logging.getLogger(__name__)

EXPECTED = (
    "query id, document id and a whole-number score, or query id, 0, document id and score, "
    "between tabs or blanks"
)


class Judgement(NamedTuple):
    """A line of a file: by ids, a grade above 0 being relevant."""

    line: int
    query: str
    document: str
    grade: int


def read_qrels(path: Path) -> Iterator[Judgement]:
    """Read the judgements of a file, plain or .gz; its first line tells which form it has.

    Raises
    ------
    DatasetError
        The file cannot be read, a line has another form than the first, or a score is not a whole
        number; file and line are named.
    """
    separator, columns = None, 0
    for number, line in read_lines(path):
        is_first = not columns
        if is_first:
            separator = "\t" if "\t" in line else None
            columns = len(line.split(separator))
        cells = line.split(separator)
        if len(cells) not in (3, 4):
            raise malformed(path, number, f"{len(cells)} columns", EXPECTED)
        if len(cells) != columns:
            found = f"{len(cells)} columns, and {columns} in the first line"
            raise malformed(path, number, found, "one form in the whole file: " + EXPECTED)
        score = _number(cells[-1])
        if score is None and is_first:
            logger.debug("%s, line %d is a heading: %s", path, number, line[:200])
            continue
        if score is None or not score.is_integer() or abs(score) >= 2**31:
            raise malformed(path, number, f"score {cells[-1][:40]!r}", EXPECTED)
        yield Judgement(number, cells[0], cells[-2], int(score))


def place_of(paths: list[Path], row: int) -> str:
    """Name the file and the line of a judgement, by its number among those of several files."""
    places = (f"{path}, line {one.line}" for path in paths for one in read_qrels(path))
    return next(islice(places, row, None))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
