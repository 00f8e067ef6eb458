"""The small collection that most findings were seen on, and a sweep over it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from genret_dask.specs import SweepSpec

TOPICS = ("volcano", "harvest", "election", "festival", "railway")
PLACES = ("Iceland", "Peru", "Kenya", "Japan", "Norway", "Chile", "Egypt", "Nepal")
VERBS = ("erupted", "failed", "began", "ended")

FEMTO = {
    "t5": {"family": "t5", "name": "t5", "size": "femto"},
    "llama": {"family": "llama", "name": "llama", "size": "femto"},
}


def tiny_documents() -> list[str]:
    """40 documents of one sentence, each with its own topic and place."""
    return [
        f"The {topic} in {place} {VERBS[(row + column) % 4]} in {1800 + 8 * row + column}."
        for row, topic in enumerate(TOPICS)
        for column, place in enumerate(PLACES)
    ]


def tiny_queries() -> list[tuple[str, int]]:
    """12 queries, each with the row of its document."""
    rows = range(1, 40, 7), range(2, 40, 7)
    asked = []
    for row in [*rows[0], *rows[1]]:
        topic, place = TOPICS[row // 8], PLACES[row % 8]
        asked.append(
            (f"when was the {topic} in {place} that {VERBS[(row // 8 + row % 8) % 4]}", row)
        )
    return asked


def write_collection(
    folder: Path,
    documents: Sequence[str] | Mapping[str, str],
    queries: Sequence[str] | Mapping[str, str],
    qrels: Mapping[str, Sequence[tuple[str, str, int]]],
) -> Path:
    """Write a BEIR folder.

    Parameters
    ----------
    documents, queries : sequence of str, or mapping of id to str
        Of a sequence the ids are d0, d1, ... and q0, q1, ...
    qrels : mapping of split to list of (query id, document id, grade)
        A split that is not there has no file.
    """
    (folder / "qrels").mkdir(parents=True)
    for name, prefix, texts in (("corpus", "d", documents), ("queries", "q", queries)):
        named = (
            texts
            if isinstance(texts, Mapping)
            else {f"{prefix}{i}": t for i, t in enumerate(texts)}
        )
        lines = [
            json.dumps({"_id": one, "text": text}, ensure_ascii=False)
            for one, text in named.items()
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for split, rows in qrels.items():
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_tiny(folder: Path) -> Path:
    """The collection TINY: 40 documents, 12 queries, 6 to train and 6 to test with."""
    asked = tiny_queries()
    rows = [(f"q{number}", f"d{row}", 1) for number, (_, row) in enumerate(asked)]
    texts = [text for text, _ in asked]
    return write_collection(folder, tiny_documents(), texts, {"train": rows[:6], "test": rows[6:]})


def tiny_spec(collection: Path, **changes: Any) -> SweepSpec:
    """A study of a BEIR folder that takes a few seconds; `changes` are keys of the YAML."""
    content: dict[str, Any] = {
        "name": "tiny",
        "dataset": {"kind": "beir", "path": str(collection)},
        "identifiers": [{"kind": "codes", "levels": 2, "codes": 8}],
        "tokenizer": {"vocab_size": 400},
        "training": {"examples": 256, "batch_size": 16, "evaluations": 2},
        "models": [FEMTO["t5"]],
        "inference": {"beams": [1, 5, 10], "negatives": 8, "shard_queries": 4},
        "fits": {"bootstrap": 20},
        **changes,
    }
    return SweepSpec.model_validate(content)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The folder of the collection TINY."""
    return write_tiny(tmp_path / "beir")
