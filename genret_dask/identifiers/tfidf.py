"""Latent semantic analysis: fitted to some texts, it gives any text a vector."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genret_dask.datasets.words import terms
from genret_dask.storage.arrays import parsed

_FEW = 20  # texts: a word of half of them still tells some apart


@dataclass(frozen=True)
class Tfidf:
    """TF-IDF of words, projected on singular directions.

    Attributes
    ----------
    words : list of str
        A column each.
    common : bool[words]
        Words of more than half of the texts, unless texts are few; see `_telling`.
    idf : float32[words]
    components : float32[dim, words]
    """

    words: list[str]
    common: np.ndarray
    idf: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, texts: Iterable[str], dim: int, seed: int) -> tuple[Tfidf, np.ndarray]:
        """Find words, weights and at most `dim` directions; also return the texts' own vectors.

        Raises
        ------
        ValueError
            No text has a word.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

        counter = CountVectorizer(analyzer=terms)
        counts = counter.fit_transform(texts)
        total = counts.shape[0]
        common = np.bincount(counts.indices) > (total / 2 if total > _FEW else total)
        counts = _telling(counts, common)
        kept = np.unique(counts.indices)
        weights = TfidfTransformer(sublinear_tf=True)
        matrix = weights.fit_transform(counts[:, kept])
        if len(kept) < 2:
            components, vectors = np.eye(len(kept)), matrix.toarray()
        else:
            svd = TruncatedSVD(min(dim, *matrix.shape), random_state=seed)
            with np.errstate(invalid="ignore"):  # it divides by the variance, 0 of equal texts
                vectors = svd.fit_transform(matrix)
            components = svd.components_
        words = counter.get_feature_names_out()[kept].tolist()
        fitted = common[kept], weights.idf_.astype(np.float32), components.astype(np.float32)
        return cls(words, *fitted), vectors

    def transform(self, texts: Iterable[str]) -> np.ndarray:
        """Give each text its vector, float32[texts, dim]; 0 where it has none of the words."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.preprocessing import normalize

        columns = {word: column for column, word in enumerate(self.words)}
        counts = CountVectorizer(analyzer=terms, vocabulary=columns).transform(texts)
        matrix = _telling(counts, self.common).astype(np.float32)
        matrix.data = (1 + np.log(matrix.data)) * self.idf[matrix.indices]
        return np.asarray(normalize(matrix, copy=False) @ self.components.T)

    def save(self, path: Path) -> None:
        """Write a plain .npz file."""
        spelled = [word.encode() for word in self.words]
        np.savez(
            path,
            letters=np.frombuffer(b"".join(spelled), dtype=np.uint8),
            ends=np.cumsum([*map(len, spelled)], dtype=np.int64),
            common=self.common,
            idf=self.idf,
            components=self.components,
        )

    @classmethod
    def load(cls, path: Path) -> Tfidf:
        """Read what `save` wrote."""
        found = parsed(lambda: {**np.load(path, allow_pickle=False)})
        letters, ends = found["letters"].tobytes(), found["ends"].tolist()
        words = [
            letters[first:last].decode() for first, last in zip([0, *ends], ends, strict=False)
        ]
        return cls(words, found["common"], found["idf"], found["components"])


def _telling(counts: Any, common: np.ndarray) -> Any:
    """Word counts without common words; a text that has no other words keeps them."""
    texts = counts.shape[0]
    row = np.repeat(np.arange(texts), np.diff(counts.indptr))
    rare = ~common[counts.indices]
    others = np.bincount(row[rare], minlength=texts) > 0
    counts.data[~rare & others[row]] = 0
    counts.eliminate_zeros()
    return counts
