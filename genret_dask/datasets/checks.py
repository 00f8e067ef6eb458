"""What makes a collection unusable, and what its user should know: one text for all who say it.

`genret-dask datasets validate` and a run call the same functions.
"""

from __future__ import annotations

from typing import Any

from genret_dask.datasets.collection import Collection
from genret_dask.errors import DatasetError
from genret_dask.specs import PairsSpec


def check_usable(collection: Collection, split: str, pairs: PairsSpec | None) -> None:
    """Refuse a collection that no model can be trained on, or nothing be searched in.

    Parameters
    ----------
    split : str
        The split that is searched.
    pairs : PairsSpec or None
        None where nothing is trained.

    Raises
    ------
    DatasetError
        No document has text, the settings make no training pair, or the split has no relevant
        judgement.
    """
    if len(collection.blank) == len(collection):
        raise DatasetError(
            f"none of the {len(collection):,} documents of {collection.name} has a text: there is "
            "nothing to train on",
            expected="documents with text",
        )
    trains = pairs is None or (pairs.queries and len(collection.qrels["train"].relevant()))
    makes = pairs and (pairs.documents or pairs.sentences or pairs.spans or pairs.file)
    if pairs is not None and not (trains or makes):
        raise DatasetError(
            f"training.pairs makes no pair of {collection.name}: there is nothing to train on",
            expected="train queries, documents, sentences, spans or a file",
            fix="set training.pairs.documents: true",
        )
    if not len(collection.qrels[split].relevant()):
        raise DatasetError(
            f"the {split} split of {collection.name} has no query with a relevant document",
            expected=f"judgements above 0 of that split, as in qrels/{split}.tsv of a BEIR folder",
            fix="choose another split with inference.split",
        )


def list_remarks(facts: dict[str, Any]) -> list[str]:
    """What a user should know about a collection before training on it, one line each.

    Parameters
    ----------
    facts : dict
        As `genret_dask.datasets.summary` gives them.
    """
    splits = facts["splits"]
    texts = {
        "queries_without_qrels": "queries have no relevant document",
        "queries_in_two_splits": "queries are in more than one split: training has seen them",
        "documents_without_text": "documents have no text",
        "documents_repeated": (
            "documents have the text of another, up to white space: nothing tells them apart"
        ),
        "queries_with_a_documents_id": (
            "queries have the id of a document: it is left out of their rankings where the texts "
            "coincide too, or as inference.ignore_identical_ids says"
        ),
        "queries_without_text": "queries have no text",
        "test_documents_without_train_query": (
            f"of {splits['test']['documents']} relevant documents of the test split have no "
            "train query: document and pseudo-query pairs must teach them"
        ),
    }
    remarks = [f"{facts[key]:,} {text}" for key, text in texts.items() if facts[key]]
    if not splits["train"]["relevant"]:
        remarks.append(
            "the train split is empty: models learn from documents and pseudo-queries alone"
        )
    if not splits["dev"]["relevant"]:
        instead = (
            "training stops on the loss of train queries instead"
            if splits["train"]["relevant"]
            else "nor are there train queries: training goes to its end and keeps the last state"
        )
        remarks.append(f"the dev split is empty: {instead}")
    return remarks
