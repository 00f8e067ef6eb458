"""The reader: from a text to token ids, the same for training, indexes and search."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from genret_dask.datasets.words import one_line
from genret_dask.errors import ModelError
from genret_dask.models.manifest import Reading
from genret_dask.models.tokens import Tokens, read_tokenizer

_TEXTS = 1024  # tokenised together
_CHARACTERS = 2**20  # of texts that are tokenised together, but for the last one
_PROBES = ("a", "What is 12?", "two words")
_UNSPEAKABLE = "\n"  # no text on one line holds it


@dataclass(frozen=True)
class Reader:
    """Turns texts into the token ids of a generative model, wherever one reads.

    A text is put on one line first. Special tokens that it spells are read as plain text.

    Attributes
    ----------
    tokenizer : Tokenizer
        One that `plain` returned.
    max_tokens : int or None
        A row keeps at most this many tokens, `opening` and `closing` included.
    opening, closing : tuple of int
        Tokens that every row of `read` begins and ends with.
    empty : int
        The token that stands for a row without any.
    lead : str
        What stands before each text, and is no token of its own: a blank behind a prompt.
    """

    tokenizer: Tokenizer
    max_tokens: int | None = None
    opening: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()
    empty: int = 0
    lead: str = ""

    @classmethod
    def at(cls, path: Path, max_tokens: int | None = None, **ends: Any) -> Reader:
        """The reader of a `tokenizer.json`.

        Raises
        ------
        ModelError
            The file is missing, or is no tokeniser.
        """
        return cls(read_tokenizer(path, _plain), max_tokens, **ends)

    @classmethod
    def of_model(cls, path: Path, reading: Reading, max_tokens: int) -> Reader:
        """The reader that an exported model was trained with.

        Parameters
        ----------
        path : Path
            The model's `tokenizer.json`.
        reading : Reading
            The manifest's.

        Raises
        ------
        ModelError
            The file is missing, or is no tokeniser.
        """
        return cls.at(
            path,
            max_tokens,
            opening=reading.begin_tokens,
            closing=reading.end_tokens,
            empty=reading.eos_token,
            lead=reading.lead,
        )

    @property
    def vocabulary(self) -> int:
        """Token ids lie below it."""
        return int(self.tokenizer.get_vocab_size())

    def read(self, texts: Iterable[str]) -> Tokens:
        """Token ids of each text with the opening and closing ones; no row is empty."""
        room = None
        if self.max_tokens is not None:
            room = max(0, self.max_tokens - len(self.opening) - len(self.closing))
        parts, lengths, cut = [np.empty(0, np.int32)], [0], list[bool]()
        for chunk in self.bare(texts, self.lead):
            cut += [room is not None and len(ids) > room for ids in chunk]
            rows = [(*self.opening, *ids[:room], *self.closing) or (self.empty,) for ids in chunk]
            parts.append(np.fromiter(chain.from_iterable(rows), np.int32))
            lengths += map(len, rows)
        return Tokens(
            np.concatenate(parts), np.cumsum(lengths, dtype=np.int64), np.array(cut, bool)
        )

    def bare(self, texts: Iterable[str], lead: str = "") -> Iterator[list[list[int]]]:
        """Token ids of the texts alone, uncut, by chunks of texts."""
        for chunk in _chunks(lead + one_line(text) for text in texts):
            encoded = self.tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
            yield [encoding.ids for encoding in encoded]

    def aligned(self, line: str) -> tuple[int, np.ndarray]:
        """How many tokens a text on one line has, and the character that each ends before.

        The characters ascend.
        """
        offsets = self.tokenizer.encode(line, add_special_tokens=False).offsets
        ends = np.fromiter((end for _, end in offsets), np.int64, len(offsets))
        return len(ends), np.maximum.accumulate(ends)


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that never returns a special token for a text that spells it.

    Its special tokens have names that no text on one line can hold, in the vocabulary, too, where
    `encode_special_tokens` would still let them be found as pieces. Ids are the same. It neither
    pads nor cuts, adds no special tokens, and drops no merge at random.
    """
    record = json.loads(tokenizer.to_str())
    special = {one["content"] for one in record["added_tokens"] if one["special"]}
    for one in record["added_tokens"]:
        if one["special"]:
            one["content"] = _UNSPEAKABLE + one["content"]
    record |= {"truncation": None, "padding": None, "post_processor": None}
    _rename(record["model"], special)
    copy: Tokenizer = Tokenizer.from_str(json.dumps(record))
    copy.encode_special_tokens = True
    return copy


@lru_cache(maxsize=4)
def _plain(text: str) -> Tokenizer:
    """The plain tokeniser of a `tokenizer.json`'s text; of a large one it takes a second."""
    return plain(Tokenizer.from_str(text))


def _rename(model: dict[str, Any], special: set[str]) -> None:
    def renamed(piece: str) -> str:
        return _UNSPEAKABLE + piece if piece in special else piece

    if isinstance(model["vocab"], dict):
        model["vocab"] = {renamed(piece): number for piece, number in model["vocab"].items()}
    else:
        model["vocab"] = [[renamed(piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = renamed(model["unk_token"])
    if "dropout" in model:
        model["dropout"] = None
    if "merges" in model:
        prefix = model["continuing_subword_prefix"] or ""
        model["merges"] = [
            (left, right)
            for left, right in model["merges"]
            if special.isdisjoint((left, right, left + right.removeprefix(prefix)))
        ]


def ends_of(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that a tokeniser itself puts before and behind a text.

    Raises
    ------
    ModelError
        It does not read even a letter.
    """
    encoding = tokenizer.encode("a", add_special_tokens=True)
    own = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
    if not len(own):
        raise ModelError(
            "the tokeniser has no token for the letter a",
            expected="one that reads every text, by bytes or with an unknown token",
        )
    return tuple(encoding.ids[: own[0]]), tuple(encoding.ids[own[-1] + 1 :])


def pieces_of(tokenizer: Any, prompt: str) -> tuple[tuple[int, ...], str, tuple[int, ...]]:
    """Take a prompt apart, so that the tokens of its pieces are those of the whole.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
    prompt : str
        Holds ``{query}`` once.

    Returns
    -------
    opening : tuple of int
        Tokens before the query.
    lead : str
        What a query begins with.
    closing : tuple of int
        Tokens behind it.

    Raises
    ------
    ModelError
        A query grows together with what stands beside it.
    """

    def read(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    before, _, behind = prompt.partition("{query}")
    opening = read(before.rstrip())
    # A tokeniser may put a blank of its own before every text.
    blanks = (" ", "") if before[-1:].isspace() else ("",)
    for lead, closing in product(blanks, (read(behind), read(behind.lstrip(" ")))):
        if all(
            read(prompt.replace("{query}", query)) == (*opening, *read(lead + query), *closing)
            for query in _PROBES
        ):
            return opening, lead, closing
    raise ModelError(
        f"the tokeniser reads the prompt {prompt!r} and a query otherwise than in one piece",
        expected="blanks or line breaks on both sides of {query}",
    )


def _chunks(texts: Iterator[str]) -> Iterator[Sequence[str]]:
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if len(chunk) == _TEXTS or characters >= _CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
