"""The tokeniser of models trained from scratch: byte-level BPE of the collection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from genret_dask.datasets.collection import Collection
from genret_dask.specs import TokenizerSpec

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def train_tokenizer(collection: Collection, spec: TokenizerSpec) -> PreTrainedTokenizerFast:
    """Learn a lower-casing byte-level BPE from the documents and the train queries."""

    def texts() -> Iterator[str]:
        for row in range(len(collection)):
            yield collection.document(row)
        for row in sorted(set(collection.qrels["train"].query.tolist())):
            yield collection.queries[row]

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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
