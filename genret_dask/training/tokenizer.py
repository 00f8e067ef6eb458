"""The tokeniser of models trained from scratch: byte-level BPE of the collection."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from genret_dask.datasets.collection import Collection
from genret_dask.datasets.order import sample_rows
from genret_dask.datasets.words import one_line, words
from genret_dask.specs import TokenizerSpec

logger = logging.getLogger(__name__)

SAMPLED = 100_000
"""Documents, at most, that a tokeniser is trained on."""

LONGEST_WORD = 1000
"""Letters, digits or signs in a row that a tokeniser is trained on in one piece."""

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"

_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+"
_CUT = "\n"  # between pieces that no token may span; no text on one line holds it
_RUN = re.compile(r"[^\W\d_]+|\d+|(?:_|[^\w\s])+")
_UNSPACED = re.compile(  # Thai, Lao, Burmese, Khmer; Han, kana, bopomofo and their like
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u3190-\ua4cf\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def train_tokenizer(collection: Collection, spec: TokenizerSpec) -> PreTrainedTokenizerFast:
    """Learn a lower-casing byte-level BPE from documents, at most `SAMPLED`, and the train queries.

    No token spans words, of scripts without blanks between them as little as of others: whole
    phrases of a small collection would become tokens that no query has.
    """
    long = 0

    def texts() -> Iterator[str]:
        nonlocal long
        queries = collection.queries.take(np.unique(collection.qrels["train"].query))
        rows = sample_rows(len(collection), SAMPLED, (0,))
        for text in chain(map(collection.document, rows.tolist()), queries):
            line, cut = _in_pieces(f" {one_line(text)}")
            long += cut
            yield line

    # Not `Digits`: to it the bytes of many letters, as they are spelled here, are digits (ü is Ã¼).
    steps = [
        pre_tokenizers.Split(Regex(_WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        pre_tokenizers.Split(Regex("[0-9]+"), "isolated"),
    ]
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    plain = [normalizers.NFKC(), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence(plain)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_CUT, "removed"), *steps]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=spec.vocab_size,
            special_tokens=[PAD, END, UNKNOWN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.normalizer = normalizers.Sequence([*plain, normalizers.Prepend(" ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if long:
        logger.warning(
            "%d words of the collection have more than %d characters; the tokeniser is trained on "
            "pieces of them",
            long,
            LONGEST_WORD,
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN
    )


def _in_pieces(line: str) -> tuple[str, int]:
    """A line cut around the words of scripts without blanks, and inside long words; how many.

    The training takes time with the square of a piece's length.
    """
    if not line.isascii() and _UNSPACED.search(line):
        places = [(start, stop) for start, stop in words(line) if _UNSPACED.match(line, start)]
        cuts = sorted({0, len(line), *chain.from_iterable(places)})
        line = _CUT.join(line[start:stop] for start, stop in zip(cuts[:-1], cuts[1:], strict=True))
    if max(map(len, line.split()), default=0) <= LONGEST_WORD:
        return line, 0
    long = 0

    def pieces(run: re.Match[str]) -> str:
        nonlocal long
        word = run.group()
        long += len(word) > LONGEST_WORD
        starts = range(0, len(word), LONGEST_WORD)
        return _CUT.join(word[start : start + LONGEST_WORD] for start in starts)

    return _RUN.sub(pieces, line), long


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
