"""From a docstring to its summary sentence and the prose and parameters after it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

MIN_SUMMARY_WORDS = 3
MIN_BODY_WORDS = 20

_CUT_SECTIONS = re.compile(r"(Examples?|References?|See Also)\s*:*", re.IGNORECASE)
_UNDERLINE = re.compile(r"\s*([-=~^*])\1{2,}\s*")
_SIGNATURE = re.compile(r"[\w.]+\(.*\)(\s*->\s*.+)?", re.DOTALL)
_BLANK_LINES = re.compile(r"\n\s*\n")
_F2PY = re.compile(r"[\w, ]+ = \w+\(")
_DIRECTIVE = re.compile(r"\s*\.\. ([\w:-]+)::\s*(.*)")
_KEPT_DIRECTIVES = ("note", "warning", "math", "tip", "important", "admonition", "attention")
_ROLE = re.compile(r":[\w:+-]+:`~?([^`<]+?)(\s*<[^`>]*>)?`")
_TICKS = re.compile(r"`+([^`]+)`+_{0,2}")
_CITATION = re.compile(r"\s?\[[\w-]+\]_")
_COPIED = re.compile(r"This docstring was copied from|Some inconsistencies with the Dask version")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]][.!?])\s+(?=[A-Z])")


class Pair(NamedTuple):
    """One object's name and the two halves of its docstring."""

    name: str
    summary: str
    body: str


def parse(name: str, doc: str) -> Pair | None:
    """Split a docstring into summary and body; None where either is too short to be of use.

    Examples
    --------
    >>> parse("f", "add(a, b)\\n\\nAdd two numbers.\\n\\n" + "It wraps around. " * 7).summary
    'Add two numbers.'
    """
    text = inspect.cleandoc(doc.expandtabs())
    while _SIGNATURE.fullmatch((parts := _BLANK_LINES.split(text, maxsplit=1))[0]):
        text = parts[1] if len(parts) > 1 else ""
    paragraphs = _paragraphs(_without_sections(_without_directives(text.splitlines())))
    paragraphs = [text for text in paragraphs if not _COPIED.match(text)]
    if not paragraphs or _F2PY.match(paragraphs[0]):
        return None
    summary, *rest = _SENTENCE_END.split(_plain(paragraphs[0]), maxsplit=1)
    body = "\n".join([*rest, *(_plain(paragraph) for paragraph in paragraphs[1:])])
    if len(summary.split()) < MIN_SUMMARY_WORDS or len(body.split()) < MIN_BODY_WORDS:
        return None
    return Pair(name, summary, body)


def _without_directives(lines: list[str]) -> Iterator[str]:
    """Drop doctests and directives such as versionadded; of notes and the like keep the content."""
    dropped_indent: int | None = None
    in_doctest = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        blank = not line.strip()
        if dropped_indent is not None and not blank:
            if indent > dropped_indent:
                continue
            dropped_indent = None
        in_doctest = line.lstrip().startswith(">>>") or (in_doctest and not blank)
        if in_doctest:
            continue
        directive = _DIRECTIVE.match(line)
        if directive is None:
            yield line
        elif directive[1] in _KEPT_DIRECTIVES:
            yield ""
            yield " " * indent + directive[2]
        else:
            dropped_indent = indent


def _without_sections(lines: Iterable[str]) -> Iterator[str]:
    """Drop the sections named in `_CUT_SECTIONS` and the lines that underline a heading."""
    cut = False
    for line, following in pairwise([*lines, ""]):
        if line.strip() and _UNDERLINE.fullmatch(following):
            cut = bool(_CUT_SECTIONS.fullmatch(line.strip()))
            if not cut:
                yield ""
                yield line
                yield ""
        elif not cut and not _UNDERLINE.fullmatch(line):
            yield line


def _paragraphs(lines: Iterable[str]) -> list[str]:
    """Join lines into paragraphs; a blank line or a smaller indent begins a new one."""
    paragraphs: list[list[str]] = [[]]
    indent = 0
    for line in lines:
        stripped = line.strip()
        previous, indent = indent, len(line) - len(line.lstrip())
        if not stripped or indent < previous:
            paragraphs.append([])
        if stripped:
            paragraphs[-1].append(stripped)
    return [" ".join(words) for words in paragraphs if words]


def _plain(text: str) -> str:
    """Drop reStructuredText's marks, mask memory addresses, even out white space."""
    text = _TICKS.sub(r"\1", _ROLE.sub(r"\1", _CITATION.sub("", text)))
    return " ".join(_ADDRESS.sub("0x0", text).split())
