"""A model as a retriever: texts in, documents out, by the engine of the sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from genret_dask.cube.schema import CONTRAST, SEARCH
from genret_dask.datasets import stored
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.columns import encodable
from genret_dask.errors import InputError
from genret_dask.executors.protocol import Progress
from genret_dask.kinds.base import Kind
from genret_dask.models.manifest import fetched_model
from genret_dask.models.reader import Reader
from genret_dask.models.tokens import Tokens
from genret_dask.run.carried import Place
from genret_dask.shards.plan import ShardTask, runs
from genret_dask.shards.resources import Resources
from genret_dask.shards.task import decode
from genret_dask.specs import InferenceSpec, Provider

_TOGETHER = 256  # queries whose results are held at once
_NOTHING = frozenset({CONTRAST})


class Hit(NamedTuple):
    """A document that was found."""

    id: str
    score: float
    title: str
    text: str


@dataclass(frozen=True, eq=False)
class Found(Sequence[list[Hit]]):
    """What a search found: a list of hits for each query, the best first.

    Attributes
    ----------
    place : Place
        Of the model that searched.
    collection : Collection
    texts : sequence of str
        What was asked.
    doc, score : int32, float32 [queries, ranks]
        Rows of the collection, -1 where there is none.
    """

    place: Place
    collection: Collection
    texts: Sequence[str]
    doc: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.doc)

    def __getitem__(self, query: int) -> list[Hit]:  # type: ignore[override]
        doc = self.doc[query]
        rows = doc[doc >= 0]
        columns = (self.collection.document_ids, self.collection.titles, self.collection.texts)
        ids, titles, texts = (column.take(rows) for column in columns)
        scores = self.score[query].tolist()
        return [Hit(*hit) for hit in zip(ids, scores, titles, texts, strict=False)]

    def __iter__(self) -> Iterator[list[Hit]]:
        return (self[query] for query in range(len(self)))

    def __repr__(self) -> str:
        return f"<Found: {len(self):,} queries, {self.doc.shape[1]:,} ranks, {self.place.name}>"

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The same as an `xarray.Dataset`, made when it is first asked for.

        `doc` and `score` over (query, rank), and `id`, the documents' ids, "" where there is none;
        `query` counts from 0, and its coordinate `text` is what was asked.
        """
        rows, where = np.unique(self.doc, return_inverse=True)
        missing = [""] * int((rows < 0).sum())
        names = np.array(missing + self.collection.document_ids.take(rows[rows >= 0]), dtype=str)
        return xr.Dataset(
            {
                "doc": (("query", "rank"), self.doc),
                "score": (("query", "rank"), self.score),
                "id": (("query", "rank"), names[where].reshape(self.doc.shape)),
            },
            coords={
                "query": np.arange(len(self)),
                "text": ("query", np.array(self.texts, dtype=str)),
                "rank": np.arange(1, self.doc.shape[1] + 1),
            },
            attrs={"model": self.place.name, "identifiers": self.place.kind.label},
        )


def check_search(
    kind: Kind, documents: int, texts: Sequence[str], beam: int, top: int | None
) -> int:
    """Refuse what cannot be searched; return how many ranks a query gets.

    Raises
    ------
    InputError
        A query is empty, the beam is not positive, or `top` is above what the beam can find.
    """
    if beam < 1:
        raise InputError(f"beam size {beam}", expected="1 or more")
    most = kind.sizes((beam,), documents)["rank"]
    if top is not None and not 1 <= top <= most:
        raise InputError(
            f"top {top}, of which a search at beam {beam} finds {most} at most",
            expected=f"1 to {most}, or a larger beam",
        )
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"query {row} is a {type(text).__name__}", expected="a text")
        if not encodable(text):
            raise InputError(
                f"query {row} holds half a character: {text[:60]!r}", expected="UTF-8 text"
            )
        if not text.strip():
            raise InputError(f"query {row} is empty", expected="a text")
    return most if top is None else top


class Retriever:
    """Searches a collection with one model.

    Threads may share it.

    Parameters
    ----------
    place : Place
    provider : {"cpu", "cuda"}
    threads : int, optional
        Of ONNX Runtime; all cores by default.
    memory : str, optional
        What the process may hold, as "4GB"; 60 % of the machine's by default.
    resources : Resources, optional
        Of the process: opened models are kept there.

    Raises
    ------
    ModelError
        A file is damaged, or the identifiers are of another collection or tokeniser.
    DeviceError
        The provider is not there.

    Examples
    --------
    >>> retriever = Retriever.open("runs/squad", model="llama-micro")  # doctest: +SKIP
    >>> [hit.id for hit in retriever.search(["Who won?"], beam=20)[0]]  # doctest: +SKIP
    """

    def __init__(
        self,
        place: Place,
        *,
        provider: Provider = "cpu",
        threads: int | None = None,
        memory: str | None = None,
        resources: Resources | None = None,
    ) -> None:
        self.place = place
        self._spec = InferenceSpec(provider=provider, threads=threads, memory=memory)
        self._resources = resources or Resources()
        each = self._resources.host.threads_each(threads)
        self._session = self._resources.session(place.model, provider, each)
        self.collection = stored.read_artefact(place.collection)
        place.check_corpus(self.collection.content_hash)
        self._space = self._resources.space(place.kind, place.identifiers)
        place.kind.require_match(
            self._space, self._session.manifest, self.collection.content_hash, place.identifiers
        )
        self._reader = Reader.of_model(
            fetched_model(place.model) / "tokenizer.json",
            self._session.manifest.require_reading(),
            place.max_tokens,
        )

    @classmethod
    def open(
        cls,
        place: Path | str,
        *,
        model: str | None = None,
        identifiers: str | None = None,
        provider: Provider = "cpu",
        threads: int | None = None,
        memory: str | None = None,
    ) -> Retriever:
        """Open a model of a run, or a model's folder.

        Parameters
        ----------
        place : path
            A run's directory, or a model's folder wherever it was copied to.
        model, identifiers : str, optional
            Of a run: which of its models, and which identifiers it generates, where it has several.
        provider, threads, memory
            See `Retriever`.

        Raises
        ------
        InputError
            There is no such model, or several and none was named.
        """
        found = Place.of(place, model, identifiers)
        return cls(found, provider=provider, threads=threads, memory=memory)

    def __repr__(self) -> str:
        return (
            f"<Retriever {self.place.name}: {self.place.kind.label} of "
            f"{len(self.collection):,} documents>"
        )

    def search(
        self,
        queries: Sequence[str],
        beam: int = 20,
        top: int | None = None,
        progress: Progress | None = None,
    ) -> Found:
        """Find the documents of queries.

        Parameters
        ----------
        queries : sequence of str
            A query with more tokens than the model was trained to read is cut.
        beam : int
            Beam size; it need not be one of the sweep's.
        top : int, optional
            Documents of a query; all that the beam finds by default.
        progress : callable, optional
            Gets how many queries are done, and of how many.

        Raises
        ------
        InputError
            A query is empty, or `top` is above what the beam can find.
        BudgetError
            Not even one query fits into the memory.
        NumericError
            The model gave NaN or infinity.
        """
        texts = [queries] if isinstance(queries, str) else list(queries)
        ranks = check_search(self.place.kind, len(self.collection), texts, beam, top)
        doc = np.full((len(texts), ranks), -1, dtype=np.int32)
        score = np.full((len(texts), ranks), np.nan, dtype=np.float32)
        for first, last in runs(len(texts), _TOGETHER):
            found = self._searched(self._reader.read(texts[first:last]), beam, first)
            here = min(ranks, found["doc"].shape[-1])
            doc[first:last, :here] = found["doc"][:, 0, :here]
            score[first:last, :here] = found["score"][:, 0, :here]
            if progress:
                progress(last, len(texts))
        return Found(self.place, self.collection, texts, doc, score)

    def _searched(self, tokens: Tokens, beam: int, first: int) -> dict[str, np.ndarray]:
        kind, count = self.place.kind, len(tokens.lengths)
        nothing = np.empty((count, 0), dtype=np.int32)
        decoder = kind.decoder(self._session, self._space, (beam,), nothing, None)
        return decode(
            decoder,
            tokens,
            ShardTask(kind.label, 0, self.place.name, first, first + count),
            self._spec.model_copy(update={"beams": (beam,)}),
            self._resources,
            [f"query {first + row}" for row in range(count)],
            candidates=0,
            kept=_NOTHING,
        )[SEARCH]
