"""The tokeniser of models trained from scratch: byte-level BPE of the collection."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from genret_dask.datasets.collection import Collection
from genret_dask.datasets.words import one_line
from genret_dask.specs import TokenizerSpec

logger = logging.getLogger(__name__)

LONGEST_WORD = 1000
"""Letters, digits or signs in a row that a tokeniser is trained on in one piece."""

_RUN = re.compile(r"[^\W\d_]+|\d+|(?:_|[^\w\s])+")

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def train_tokenizer(collection: Collection, spec: TokenizerSpec) -> PreTrainedTokenizerFast:
    """Learn a lower-casing byte-level BPE from the documents and the train queries."""

    long = 0

    def texts() -> Iterator[str]:
        nonlocal long
        asked = sorted(set(collection.qrels["train"].query.tolist()))
        queries = (collection.queries[row] for row in asked)
        documents = (collection.document(row) for row in range(len(collection)))
        for text in chain(documents, queries):
            line, cut = _short_words(text)
            long += cut
            yield line

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True),
            pre_tokenizers.Digits(individual_digits=False),
        ]
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


def _short_words(text: str) -> tuple[str, int]:
    """A text on one line with its long words in pieces, and how many they were.

    The training takes time with the square of a word's length.
    """
    line, long = one_line(text), 0
    if max(map(len, line.split()), default=0) <= LONGEST_WORD:
        return line, 0

    def pieces(run: re.Match[str]) -> str:
        nonlocal long
        word = run.group()
        long += len(word) > LONGEST_WORD
        starts = range(0, len(word), LONGEST_WORD)
        return " ".join(word[start : start + LONGEST_WORD] for start in starts)

    return _RUN.sub(pieces, line), long


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
