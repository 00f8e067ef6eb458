"""What the benchmarks run on: models with random weights, and random code identifiers.

A search takes the time that its sizes ask for, whatever the weights. Their scale is that of a
model whose logits have a deviation of about one, so that beams compete and near-ties are rare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from genret_dask.exporters import export_model
from genret_dask.identifiers import Codes, Trie
from genret_dask.inference.beam import Beams
from genret_dask.inference.constraint import Vocabulary
from genret_dask.inference.resident import searcher
from genret_dask.inference.session import Session, open_session
from genret_dask.models.architectures import architecture_of
from genret_dask.models.configs import config_of
from genret_dask.models.families import family_of
from genret_dask.specs import ModelSpec

LEVELS, CODES = 8, 256


@dataclass(frozen=True)
class Scale:
    """Sizes of a run of the benchmarks.

    Attributes
    ----------
    preset : str
        Of each family.
    text_rows : int
        Vocabulary rows before the codes'; at least `CODES`.
    documents, queries, prompt : int
        Of the collection, of one call, and tokens of a query.
    beams : tuple of int
    negatives : int
        Candidates of a query beside its one positive.
    ids : int
        Identifiers of the constraint alone.
    corpus : int
        Documents that negatives are drawn from.
    ngram_tokens : int
        Tokens of the corpus that n-grams come from.
    draws, trials : int
        Resamples that a law is fitted to, and synthetic studies of the intervals.
    """

    preset: str
    text_rows: int
    documents: int
    queries: int
    prompt: int
    beams: tuple[int, ...]
    negatives: int
    ids: int
    corpus: int
    ngram_tokens: int
    draws: int = 1000
    trials: int = 500


_BEAMS = (1, 2, 5, 10, 20, 50, 100)
FULL = Scale("small", 32_128, 20_000, 8, 24, _BEAMS, 256, 10**6, 21_015_324, 10**8)
QUICK = Scale("micro", 4_096, 20_000, 2, 24, _BEAMS, 64, 10**5, 10**6, 10**6, 200, 40)


@dataclass(frozen=True)
class Workload:
    """One family's model, in PyTorch and exported, and the queries to ask it."""

    family: str
    scale: Scale
    provider: str
    threads: int
    model: Any
    folder: Path
    session: Session
    codes: Codes
    vocabulary: Vocabulary
    tokens: np.ndarray
    lengths: np.ndarray

    @property
    def kind(self) -> str:
        return self.session.manifest.architecture.kind

    @property
    def start_token(self) -> int:
        return self.vocabulary.start_token

    def search(
        self,
        beams: Sequence[int],
        *,
        session: Session | None = None,
        trie: Trie | None = None,
        queries: int | None = None,
    ) -> Beams:
        """Search the first queries, or all, with the workload's own graphs and trie by default."""
        session = session or self.session
        tokens, lengths = self.tokens[:queries], self.lengths[:queries]
        trie = trie or self.codes.trie
        return searcher(session)(session, trie, self.vocabulary, tokens, lengths, beams)


@contextmanager
def workload(family: str, scale: Scale, provider: str, threads: int) -> Iterator[Workload]:
    """Make and export a model for as long as the block lasts."""
    codes = random_codes(scale.documents)
    start = scale.text_rows
    model = _model(family, scale.preset, start + 1 + codes.rows)
    rng = np.random.default_rng(0)
    with TemporaryDirectory(prefix="genret-bench.") as root:
        checkpoint, folder = Path(root, "checkpoint"), Path(root, "exported")
        model.save_pretrained(checkpoint)
        export_model(family, checkpoint, folder, start_token=start)
        yield Workload(
            family=family,
            scale=scale,
            provider=provider,
            threads=threads,
            model=model.to(torch.device(provider)),
            folder=folder,
            session=open_session(folder, provider, threads),
            codes=codes,
            vocabulary=Vocabulary(start, codes.block_starts + start + 1, codes.level_sizes),
            tokens=rng.integers(0, scale.text_rows, (scale.queries, scale.prompt)),
            lengths=np.full(scale.queries, scale.prompt),
        )


def random_codes(documents: int, seed: int = 0) -> Codes:
    """Skewed codes, as a quantiser's cells are, so that documents share prefixes of many lengths.

    Returns
    -------
    Codes
        Of `LEVELS` levels of `CODES` codes; the rows are unique and in no order.
    """
    rng = np.random.default_rng(seed)
    found = np.empty((0, LEVELS), dtype=np.int32)
    while len(found) < documents:
        drawn = (CODES * rng.random((documents, LEVELS)) ** 6).astype(np.int32)
        found = np.unique(np.concatenate([found, drawn]), axis=0)
    return Codes(rng.permutation(found)[:documents], (CODES,) * LEVELS)


def _model(family: str, preset: str, vocab_size: int) -> Any:
    config = config_of(ModelSpec(family=family, size=preset))
    config.vocab_size = vocab_size
    config.decoder_start_token_id = vocab_size - 1  # `generate` wants one of its encoder-decoders
    if hasattr(config, "initializer_range"):
        config.initializer_range = architecture_of(config).d_model ** -0.5
    torch.manual_seed(0)
    return family_of(family).load_model_class()(config).eval()
