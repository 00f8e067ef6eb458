"""What a model of a finished run generates for a query, and which documents that leads to."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from genret_dask.cube.open import cube_path
from genret_dask.cube.store import read_attributes
from genret_dask.datasets import stored
from genret_dask.datasets.collection import Collection, encodable
from genret_dask.datasets.words import one_line
from genret_dask.errors import InputError, NumericError
from genret_dask.identifiers import read_codes
from genret_dask.identifiers.ngrams import read_index
from genret_dask.inference.documents import rank_documents
from genret_dask.inference.own import own_documents
from genret_dask.inference.session import Session, open_session
from genret_dask.models.manifest import fetched_model
from genret_dask.models.reader import Reader
from genret_dask.models.tokens import read_tokenizer
from genret_dask.shards.decoders import CodeDecoder, NgramDecoder, check_index
from genret_dask.specs import InferenceSpec, NgramsIdentifiers, SweepSpec
from genret_dask.specs.validation import validate
from genret_dask.storage.artefacts import fetched
from genret_dask.storage.places import names_in

logger = logging.getLogger(__name__)

_NO_CANDIDATES = np.empty((1, 0), dtype=np.int32)


@dataclass(frozen=True)
class Explanation:
    """What was generated for one query at one beam size.

    Attributes
    ----------
    kind, model, query : str
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
    kind : {"codes", "ngrams"}, optional
        Of identifier; n-grams by default where the run has them.

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
    kinds = {one.kind: one for one in spec.identifiers}
    kind = kind or ("ngrams" if "ngrams" in kinds else "codes")
    if not encodable(query):
        raise InputError(f"the query {query[:60]!r} holds half a character", expected="UTF-8 text")
    if beam < 1:
        raise InputError(f"beam size {beam}", expected="1 or more")
    if not query.strip():
        raise InputError("the query is empty", expected="a text")
    if kind not in kinds:
        raise InputError(f"{run} has no {kind}", expected=" or ".join(kinds))
    models = cube.parent / "models" / kind
    names = sorted(names_in(models))
    if model not in names:
        raise InputError(
            f"{run} has no model {model!r}",
            expected=f"one of {', '.join(names)}" if names else f"models in {models}",
        )
    collection = stored.read(fetched(cube.parent / "collection") / "beir")
    folder = fetched_model(models / model)
    session = open_session(folder)
    reader = Reader.of_model(
        folder / "tokenizer.json", session.manifest.provenance, spec.max_tokens
    )
    tokens = reader.read([query])
    if tokens.cut:
        logger.warning(
            "the query has more than %d tokens; the first are read, as in the sweep",
            spec.max_tokens,
        )
    padded = tokens.padded(np.array([0]))
    identifiers, own = kinds[kind], _own(query, collection, spec.inference)
    if not isinstance(identifiers, NgramsIdentifiers):
        beam = min(beam, len(collection))
    found = Explanation(kind, model, query, beam)
    try:
        if isinstance(identifiers, NgramsIdentifiers):
            tokenizer = read_tokenizer(folder / "tokenizer.json")
            _ngrams(found, session, identifiers, cube.parent, collection, tokenizer, padded, own)
        else:
            _codes(found, session, cube.parent, collection, padded, own)
    except NumericError as error:
        raise error.of(f"{kind}/{model}", repr(query)) from error
    return found


def _ngrams(
    found: Explanation,
    session: Session,
    spec: NgramsIdentifiers,
    run: Path,
    collection: Collection,
    tokenizer: Tokenizer,
    padded: tuple[np.ndarray, np.ndarray],
    own: set[int],
) -> None:
    space = run / "identifiers" / "ngrams" / session.manifest.files["tokenizer.json"][:12]
    index = read_index(space)
    check_index(index, session, collection.content_hash, space)
    spans = np.empty((1, 0, 0, 2), dtype=np.int32)
    decoder = NgramDecoder(session, index, spec, (found.beam,), _NO_CANDIDATES, spans)
    ngrams, evidence, _ = decoder.generate(*padded)
    end, weight, counts = decoder.end_token, evidence.weight[0], index.count(ngrams.states)
    texts = [_text(row, tokenizer, end) for row in ngrams.token]
    for row in np.lexsort((-ngrams.score, -weight)):
        mine = evidence.document[evidence.row == row]
        found.identifiers.append(
            {
                "identifier": texts[row],
                "score": float(ngrams.score[row]),
                "weight": float(weight[row]),
                "count": int(counts[row]),
                "documents": [collection.document_ids[document] for document in mine],
            }
        )
    doc, score = (ranked[0, 0] for ranked in rank_documents(evidence, 1, 1, spec.scoring.documents))
    relevant = _relevant(found.query, collection)
    for rank in _ranks(doc, own):
        mine = np.flatnonzero(evidence.document == doc[rank])
        mine = mine[np.argsort(-evidence.value[mine], kind="stable")]
        pieces = [(texts[evidence.row[item]], float(evidence.value[item])) for item in mine]
        _add(found, collection, doc[rank], score[rank], relevant, pieces)


def _codes(
    found: Explanation,
    session: Session,
    run: Path,
    collection: Collection,
    padded: tuple[np.ndarray, np.ndarray],
    own: set[int],
) -> None:
    codes = read_codes(run / "identifiers" / "codes")
    arrays = CodeDecoder(session, codes, (found.beam,), _NO_CANDIDATES).search(*padded)
    doc, score = arrays["doc"][0, 0], arrays["score"][0, 0]
    relevant = _relevant(found.query, collection)
    for rank in _ranks(doc, own):
        found.identifiers.append(
            {
                "identifier": "-".join(map(str, codes.codes[doc[rank]])),
                "score": float(score[rank]),
                "documents": [collection.document_ids[doc[rank]]],
            }
        )
        _add(found, collection, doc[rank], score[rank], relevant, [])


def _ranks(doc: np.ndarray, own: set[int]) -> list[int]:
    """Ranks that hold a document, but none of the query's own."""
    return [
        rank for rank, document in enumerate(doc.tolist()) if document >= 0 and document not in own
    ]


def _own(query: str, collection: Collection, spec: InferenceSpec) -> set[int]:
    """Documents that a sweep leaves out for the collection's queries of this text."""
    qrels, rows = collection.qrels[spec.split], _asked(query, collection)
    own = own_documents(collection, qrels, rows, spec.ignore_identical_ids)
    return {int(document) for document in own[own >= 0]}


def _add(
    found: Explanation,
    collection: Collection,
    document: int,
    score: float,
    relevant: set[int] | None,
    evidence: list[tuple[str, float]],
) -> None:
    found.documents.append(
        {
            "rank": len(found.documents) + 1,
            "document": collection.document_ids[document],
            "title": collection.titles[document],
            "score": float(score),
            "relevant": None if relevant is None else int(document) in relevant,
            "evidence": evidence,
        }
    )


def _relevant(query: str, collection: Collection) -> set[int] | None:
    """Documents that the collection's query of this text is answered by; None where it has none."""
    rows = _asked(query, collection)
    if not len(rows):
        return None
    judged = [one.relevant() for one in collection.qrels.values()]
    return {int(one) for qrels in judged for one in qrels.document[np.isin(qrels.query, rows)]}


def _asked(query: str, collection: Collection) -> np.ndarray:
    """Rows of the collection's queries that are read as this one is; int64[n]."""
    line = one_line(query)
    rows = (row for row, text in enumerate(collection.queries) if one_line(text) == line)
    return np.fromiter(rows, dtype=np.int64)


def _text(tokens: np.ndarray, tokenizer: Tokenizer, end_token: int) -> str:
    """An n-gram as it reads; one that the end token closed ends with a bar."""
    ids = [int(token) for token in tokens if token >= 0]
    ended = bool(ids) and ids[-1] == end_token
    text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)
    return f"{text}|" if ended else text
