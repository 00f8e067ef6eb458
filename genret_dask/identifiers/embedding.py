"""Document embeddings that the codes are quantised from."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from genret_dask.datasets.collection import Collection
from genret_dask.datasets.words import one_line, terms
from genret_dask.errors import DatasetError, ModelError
from genret_dask.models.pretrained import load_tokenizer, load_weights
from genret_dask.models.torch_state import alone_in_torch
from genret_dask.specs import EmbeddingSpec, EncoderEmbedding, SentenceEmbedding, TfidfEmbedding

logger = logging.getLogger(__name__)

_FEW = 20  # documents: a word of half of them still tells some apart


def embed(collection: Collection, spec: EmbeddingSpec, seed: int = 0) -> np.ndarray:
    """Return unit-length document embeddings, float32 [documents, dim].

    Raises
    ------
    ModelError
        The embedding model's folder or package is not there.
    DatasetError
        The documents hold no words to embed.
    """
    if isinstance(spec, TfidfEmbedding):
        vectors = _tfidf(collection, spec, seed)
    else:
        vectors = _encode(collection, spec)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, 1e-9), dtype=np.float32)


def _tfidf(collection: Collection, spec: TfidfEmbedding, seed: int) -> np.ndarray:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    texts = [collection.document(row) for row in range(len(collection))]
    counts = CountVectorizer(analyzer=terms)
    try:
        matrix = counts.fit_transform(texts)
    except ValueError as error:
        raise DatasetError(
            f"collection {collection.name} has no words to embed", expected="documents with text"
        ) from error
    matrix = TfidfTransformer(sublinear_tf=True).fit_transform(_telling(matrix))
    if matrix.shape[1] < 2:
        return matrix.toarray()
    with np.errstate(invalid="ignore"):  # it divides by the variance, which equal texts lack
        dim = min(spec.dim, *matrix.shape)
        return TruncatedSVD(dim, random_state=seed).fit_transform(matrix)


def _telling(counts: Any) -> Any:
    """Word counts without words of more than half of the documents, unless documents are few.

    A document that has no other words keeps them.
    """
    documents = counts.shape[0]
    if documents <= _FEW:
        return counts
    row = np.repeat(np.arange(documents), np.diff(counts.indptr))
    rare = (np.bincount(counts.indices) <= documents / 2)[counts.indices]
    others = np.bincount(row[rare], minlength=documents) > 0
    counts.data[~rare & others[row]] = 0
    counts.eliminate_zeros()
    return counts[:, np.unique(counts.indices)]


@alone_in_torch()
def _encode(collection: Collection, spec: SentenceEmbedding | EncoderEmbedding) -> np.ndarray:
    """Masked mean of the last hidden state, by batches of similar length."""
    import torch
    from transformers import AutoModel

    folder = str(model_folder(spec))
    tokenizer = load_tokenizer(folder, local_files_only=True)
    model = load_weights(AutoModel, folder, local_files_only=True).eval()
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder.to(device)

    texts = [one_line(collection.document(row)) for row in range(len(collection))]
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


def model_folder(spec: SentenceEmbedding | EncoderEmbedding) -> Path:
    """The local Hugging Face folder that an embedding names."""
    if spec.path is not None:
        if not (spec.path / "config.json").is_file():
            raise ModelError(
                f"{spec.path} is not a Hugging Face model folder",
                expected="a folder with config.json, model.safetensors and a tokeniser",
            )
        return spec.path
    package = spec.package or ""
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
