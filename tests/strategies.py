"""Hypothesis strategies that several tests draw from."""

from __future__ import annotations

from hypothesis import strategies as st

from genret_dask.datasets import Collection, Qrels

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
IDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"), min_size=1, max_size=5
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)

CODES = st.integers(1, 4).flatmap(
    lambda depth: st.lists(
        st.tuples(*[st.integers(0, 3)] * depth), min_size=1, max_size=40, unique=True
    )
)
"""Distinct identifiers of one length."""


def token_texts(
    vocabulary: int, documents: int, tokens: int, min_tokens: int = 1
) -> st.SearchStrategy[list[list[int]]]:
    """Up to so many texts of up to so many tokens of a vocabulary."""
    text = st.lists(st.integers(0, vocabulary - 1), min_size=min_tokens, max_size=tokens)
    return st.lists(text, min_size=1, max_size=documents)


def beam_sizes(largest: int, count: int = 4) -> st.SearchStrategy[list[int]]:
    """Distinct sizes of a grid, in no order."""
    return st.lists(st.integers(1, largest), min_size=1, max_size=count, unique=True)


@st.composite
def collections(draw: st.DrawFn) -> Collection:
    """A few documents and queries of any text, judged at random."""
    documents = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    queries = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    triples = st.lists(
        st.tuples(
            st.integers(0, len(queries) - 1), st.integers(0, len(documents) - 1), st.integers(-2, 3)
        ),
        max_size=5,
    )
    qrels = {}
    for split in ("train", "dev", "test"):
        rows = draw(triples)
        qrels[split] = Qrels.from_rows(*([row[i] for row in rows] for i in range(3)))
    return Collection(
        name=draw(TEXTS),
        version="v",
        document_ids=tuple(documents),
        titles=tuple(draw(TEXTS) for _ in documents),
        texts=tuple(draw(TEXTS) for _ in documents),
        query_ids=tuple(queries),
        queries=tuple(draw(TEXTS) for _ in queries),
        qrels=qrels,
        answers=draw(
            st.dictionaries(st.sampled_from(queries), st.lists(TEXTS, max_size=2).map(tuple))
        ),
    )


# --- texts that a reader has to stand -------------------------------------------------------------

_BLANKS = [chr(code) for code in range(0x3001) if chr(code).isspace()]
_SPELLED = ("</s>", "<pad>", "<s>", "<unk>", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "</", "s>")
_LONG = ("x" * 2000, "冰" * 1500, "\u0301" * 300, "1" * 1200)
_WORDS = ("volcano", "Iceland", "火山", "ภูเขาไฟ", "फटा", "بركان", "𝒳", "\0", "\u200f")

_piece = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(_SPELLED),
    st.sampled_from(_WORDS),
    st.sampled_from(_LONG),
)
_blank = st.lists(st.sampled_from(_BLANKS), min_size=1, max_size=3).map("".join)


@st.composite
def spelled_alike(draw: st.DrawFn) -> tuple[str, str]:
    """Two texts that differ in white space alone."""
    pieces = draw(st.lists(st.tuples(_piece, st.booleans()), max_size=6))
    one, other = (
        (draw(_blank) if draw(st.booleans()) else "")
        + "".join(part + (draw(_blank) if apart else "") for part, apart in pieces)
        for _ in range(2)
    )
    return one, other
