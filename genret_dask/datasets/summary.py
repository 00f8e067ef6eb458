"""Counts that describe a collection, and show what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from genret_dask.datasets.collection import SPLITS, Collection
from genret_dask.datasets.words import one_line, words


def count_repeated(collection: Collection) -> int:
    """How many documents have the text of an earlier one, up to white space."""
    texts = map(one_line, collection.documents())
    hashes = np.fromiter((hash(text) for text in texts if text), np.int64)
    return len(hashes) - len(np.unique(hashes))


def summary(collection: Collection) -> dict[str, Any]:
    """Counts that describe a collection and show what is wrong with it; plain JSON values.

    Returns
    -------
    dict
        name, version, content_hash; documents, queries; splits: for each split its judged
        queries, judgements, relevant judgements and distinct relevant documents; words: mean
        words of a document (title included) and of a query; queries_with_answers;
        queries_without_qrels (in no split, or judged only as irrelevant);
        queries_in_two_splits; documents_without_text; documents_repeated (those whose text, up to
        white space, an earlier one has); queries_with_a_documents_id; queries_without_text;
        documents_without_train_query, test_documents_without_train_query.
    """
    splits = {split: collection.qrels[split].relevant() for split in SPLITS}
    asked = {split: np.unique(qrels.query) for split, qrels in splits.items()}
    wanted = {split: np.unique(qrels.document) for split, qrels in splits.items()}
    appearances = np.bincount(
        np.concatenate(list(asked.values())), minlength=len(collection.query_ids)
    )
    blank, of_documents = _words(collection.documents())
    no_query, of_queries = _words(collection.queries)
    return {
        "name": collection.name,
        "version": collection.version,
        "content_hash": collection.content_hash,
        "documents": len(collection),
        "queries": len(collection.query_ids),
        "splits": {
            split: {
                "queries": len(np.unique(collection.qrels[split].query)),
                "judgements": len(collection.qrels[split]),
                "relevant": len(splits[split]),
                "documents": len(wanted[split]),
            }
            for split in SPLITS
        },
        "words": {
            "document": of_documents,
            "query": of_queries,
        },
        "queries_with_answers": sum(name in collection.answers for name in collection.query_ids),
        "queries_without_qrels": int((appearances == 0).sum()),
        "queries_in_two_splits": int((appearances > 1).sum()),
        "documents_without_text": blank,
        "documents_repeated": count_repeated(collection),
        "queries_with_a_documents_id": int(
            (collection.document_ids.find(collection.query_ids.column) >= 0).sum()
        ),
        "queries_without_text": no_query,
        "documents_without_train_query": len(collection) - len(wanted["train"]),
        "test_documents_without_train_query": len(np.setdiff1d(wanted["test"], wanted["train"])),
    }


def _words(texts: Iterable[str]) -> tuple[int, float]:
    """Count the blank texts, and the words of one on average."""
    blank = count = total = 0
    for text in texts:
        blank += not text.strip()
        total += len(words(text))
        count += 1
    return blank, round(total / count, 1) if count else 0.0
