"""What a model of a finished run generates for a query, and which documents that leads to."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genret_dask.cube.open import cube_path
from genret_dask.cube.store import read_attributes
from genret_dask.datasets import stored
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.columns import encodable
from genret_dask.datasets.words import one_line
from genret_dask.errors import InputError, NumericError
from genret_dask.inference.own import own_documents
from genret_dask.inference.session import open_session
from genret_dask.kinds.base import Explained
from genret_dask.models.manifest import fetched_model
from genret_dask.models.reader import Reader
from genret_dask.models.tokens import read_tokenizer
from genret_dask.specs import InferenceSpec, SweepSpec
from genret_dask.specs.validation import validate
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import names_in

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explanation:
    """What was generated for one query at one beam size.

    Attributes
    ----------
    kind, noun, model, query : str
        Kind of identifier, what people call one, the model and the query.
    beam : int
        Of codes at most the number of documents.
    identifiers : list of dict
        identifier (as text, codes joined by dashes), score (log-probability), and documents, a
        list of ids; n-grams have weight and count too, and stand by weight.
    documents : list of dict
        rank, document (id), title, score, relevant (None where the query is not the collection's),
        and evidence: for n-grams a list of (identifier, what it adds to the score).
    """

    kind: str
    noun: str
    model: str
    query: str
    beam: int
    identifiers: list[dict[str, Any]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)


def explain(
    run: Path | str, query: str, model: str, beam: int, kind: str | None = None
) -> Explanation:
    """Search one query with a model of a run.

    Parameters
    ----------
    run : path
        A run directory.
    query : str
        Any text; of one of the collection's queries the relevant documents are marked.
    model : str
        A name along the cube's `model`.
    beam : int
        Any beam size; it need not be of the sweep's grid.
    kind : str, optional
        Of identifier; by default the one of which a document has most.

    Raises
    ------
    InputError
        The run has no cube, no such kind or no such model, the query is empty, or the beam is not
        positive.
    ModelError
        A model or its identifiers are damaged.
    NumericError
        The model gave NaN or infinity.

    Examples
    --------
    >>> explain("runs/squad", "Who won?", "llama-micro", beam=10)  # doctest: +SKIP
    """
    cube = cube_path(run)
    spec = validate(SweepSpec, read_attributes(cube).get("spec"), source=f"the spec in {cube}")
    kinds = {one.label: one for one in spec.identifiers}
    kind = kind or max(kinds, key=lambda name: kinds[name].choices)
    _check_asked(query, beam)
    if kind not in kinds:
        raise InputError(f"{run} has no {kind}", expected=" or ".join(kinds))
    chosen, layout = kinds[kind], RunLayout(cube.parent)
    models = layout.model(kind)
    names = sorted(names_in(models))
    if model not in names:
        raise InputError(
            f"{run} has no model {model!r}",
            expected=f"one of {', '.join(names)}" if names else f"models in {models}",
        )
    collection = stored.read_artefact(layout.collection)
    folder = fetched_model(models / model)
    session = open_session(folder)
    reader = Reader.of_model(
        folder / "tokenizer.json", session.manifest.require_reading(), spec.max_tokens
    )
    tokens = reader.read([query])
    if tokens.cut.any():
        logger.warning(
            "the query has more than %d tokens; the first are read, as in the sweep",
            spec.max_tokens,
        )
    padded = tokens.padded(np.array([0]))
    if not chosen.choices:
        beam = min(beam, len(collection))
    digest = session.manifest.files["tokenizer.json"] if chosen.per_tokenizer else None
    space_folder = layout.identifiers(kind, digest)
    space = chosen.open(space_folder)
    chosen.require_match(space, session.manifest, collection.content_hash, space_folder)
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    try:
        found = chosen.explain(session, space, tokenizer, beam, *padded)
    except NumericError as error:
        raise error.of(f"{kind}/{model}", repr(query)) from error
    rows = _asked(query, collection)
    own = _own(rows, collection, spec.inference)
    identifiers = [
        {**one, "documents": [collection.document_ids[row] for row in one["documents"]]}
        for one in found.identifiers
        if chosen.choices or not own.issuperset(one["documents"])
    ]
    documents = _ranked(found, collection, own, _relevant(rows, collection))
    return Explanation(kind, chosen.noun, model, query, beam, identifiers, documents)


def _check_asked(query: str, beam: int) -> None:
    """Refuse what no model can be asked."""
    if not encodable(query):
        raise InputError(f"the query {query[:60]!r} holds half a character", expected="UTF-8 text")
    if beam < 1:
        raise InputError(f"beam size {beam}", expected="1 or more")
    if not query.strip():
        raise InputError("the query is empty", expected="a text")


def _ranked(
    found: Explained, collection: Collection, own: set[int], relevant: set[int] | None
) -> list[dict[str, Any]]:
    """Describe the documents by rank, the query's own left out."""
    kept = [one for one in found.documents if one[0] not in own]
    return [
        {
            "rank": rank,
            "document": collection.document_ids[row],
            "title": collection.titles[row],
            "score": score,
            "relevant": None if relevant is None else row in relevant,
            "evidence": evidence,
        }
        for rank, (row, score, evidence) in enumerate(kept, 1)
    ]


def _own(rows: np.ndarray, collection: Collection, spec: InferenceSpec) -> set[int]:
    """Documents that a sweep leaves out for these queries of the collection."""
    qrels = collection.qrels[spec.split]
    own = own_documents(collection, qrels, rows, spec.ignore_identical_ids)
    return {int(document) for document in own[own >= 0]}


def _relevant(rows: np.ndarray, collection: Collection) -> set[int] | None:
    """Documents that these queries of the collection are answered by; None without a query."""
    if not len(rows):
        return None
    judged = [one.relevant() for one in collection.qrels.values()]
    return {int(one) for qrels in judged for one in qrels.document[np.isin(qrels.query, rows)]}


def _asked(query: str, collection: Collection) -> np.ndarray:
    """Rows of the collection's queries that are read as this one is; int64[n]."""
    line = one_line(query)
    rows = (row for row, text in enumerate(collection.queries) if one_line(text) == line)
    return np.fromiter(rows, dtype=np.int64)
