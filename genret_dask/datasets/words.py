"""Words and sentences of every script, as ICU breaks them (UAX #29, and dictionaries).

Chinese, Japanese, Thai and other scripts without blanks between words are split by dictionary. The
breakers are not shared between calls: one is not safe to use from two threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby, islice

import icu4py
import numpy as np
from icu4py.breakers import SentenceBreaker, WordBreaker

RULES = f"ICU {icu4py.icu_version}"
"""Names the rules that texts are split by: with another name results may differ."""

_LOCALE = "en"
_WITHIN = re.compile("[.,:;'‘’·،٫٬]")  # punctuation that ICU keeps inside a word
_ASCII_TERMS = re.compile("[0-9a-z_]*[0-9a-z][0-9a-z_]*")  # what ICU and the split come to


def one_line(text: str) -> str:
    """Replace each run of white space by one blank, and drop it at both ends.

    White space is what `str.split` takes for it: tabs, line breaks and the Unicode blanks.
    """
    return " ".join(text.split())


def words(text: str, limit: int | None = None) -> list[tuple[int, int]]:
    """Where each word begins and ends; a word holds a letter or a digit.

    Parameters
    ----------
    limit : int, optional
        Of words, the first.

    Examples
    --------
    >>> text = "冰岛的火山, erupted!"
    >>> [text[start:stop] for start, stop in words(text)]
    ['冰岛', '的', '火山', 'erupted']
    """
    found = (
        (start, stop)
        for start, stop in _code_points(text, WordBreaker(text, _LOCALE).segments())
        if text[start].isalnum() or (stop - start > 1 and any(map(str.isalnum, text[start:stop])))
    )
    return list(found if limit is None else islice(found, limit))


def terms(text: str) -> list[str]:
    """Words in lower case, split where punctuation stands inside.

    Examples
    --------
    >>> terms("Beyoncé's U.S. tour")
    ['beyoncé', 's', 'u', 's', 'tour']
    """
    low = text.lower()
    if low.isascii():
        return _ASCII_TERMS.findall(low)
    pieces = (piece for start, stop in words(low) for piece in _WITHIN.split(low[start:stop]))
    return [piece for piece in pieces if piece]


def sentences(text: str) -> list[str]:
    """Split a text into sentences, each on one line.

    A blank line ends a paragraph and its last sentence. Other line breaks are blanks, as prose may
    be wrapped. Between two ASCII characters a sentence ends at a blank only: ``a?b`` is none.

    Examples
    --------
    >>> sentences("One sentence that is\\nwrapped. Another.\\n\\nA paragraph")
    ['One sentence that is wrapped.', 'Another.', 'A paragraph']
    """
    found = []
    for _, lines in groupby(text.splitlines(), key=lambda line: not line.strip()):
        line = one_line(" ".join(lines))
        first = 0
        for _, stop in _code_points(line, SentenceBreaker(line, _LOCALE).segments()):
            around = line[stop - 1 : stop + 1]
            if len(around) < 2 or " " in around or not around.isascii():
                found.append(line[first:stop].strip())
                first = stop
    return found


def _code_points(text: str, segments: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Segments in code points; ICU counts UTF-16 units."""
    if text.isascii():
        return iter(segments)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    if not len(codes) or codes.max() <= 0xFFFF:
        return iter(segments)
    begins = np.concatenate([[0], np.cumsum(1 + (codes > 0xFFFF))])
    point = np.zeros(begins[-1] + 1, dtype=np.int64)
    point[begins] = np.arange(len(begins))
    places = point.tolist()
    return ((places[start], places[stop]) for start, stop in segments)
