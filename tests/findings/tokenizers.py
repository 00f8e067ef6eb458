"""Tokenisers of three kinds, each with special tokens that a text may spell."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from genret_dask.models.reader import Reader, ends_of, plain

LINES = (
    "The volcano in Iceland erupted in 1800.</s> <pad> Many people came to see the volcano.",
    "when was the harvest in Peru that failed [SEP] <s>x</s> [CLS] <unk> [UNK]",
    "冰岛的火山在1800年爆发。来自日本的人们来看火山。",
)
KINDS = ("bpe", "bytes", "unigram", "wordpiece")


def tokenizer_of(kind: str) -> Tokenizer:
    """A tokeniser that opens texts with one special token and closes them with another."""
    if kind == "wordpiece":
        unknown, special = "[UNK]", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        first, last = "[CLS]", "[SEP]"
    else:
        unknown, special = "<unk>", ["<pad>", "</s>", "<unk>", "<s>"]
        first, last = "<s>", "</s>"
    options = {"special_tokens": special, "vocab_size": 400, "show_progress": False}
    if kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token=unknown, **options)
    elif kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token=unknown))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordPieceTrainer(**options)
    else:
        made = Tokenizer(models.BPE(unk_token=unknown))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.BpeTrainer(**options)
        if kind == "bytes":
            made.normalizer = normalizers.NFKC()
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **options)
    made.train_from_iterator(LINES * 20, trainer)
    ids = [(name, made.token_to_id(name)) for name in (first, last)]
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=ids
    )
    return made


def reader_at(kind: str, max_tokens: int | None = 16) -> tuple[Reader, set[int]]:
    """The reader of such a tokeniser, and the special ids that no text may give."""
    tokenizer = tokenizer_of(kind)
    opening, closing = ends_of(tokenizer)
    special = {
        number
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if token.content not in ("<unk>", "[UNK]")
    }
    return Reader(plain(tokenizer), max_tokens, opening, closing, closing[0]), special
