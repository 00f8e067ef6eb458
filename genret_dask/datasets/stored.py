"""A collection in a run directory: a BEIR folder and the hash of what it must hold."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genret_dask.datasets import beir
from genret_dask.datasets.collection import SPLITS, Collection
from genret_dask.errors import DatasetError
from genret_dask.storage.artefacts import fetched
from genret_dask.storage.layout import TEXTS

MANIFEST = "collection.json"

_FIX = "delete the folder to have it built again"


def write(collection: Collection, folder: Path) -> None:
    """Write a collection as a BEIR folder with a manifest; equal collections give equal bytes.

    The folder must not be there yet; see `genret_dask.storage.places.staged` for one that appears
    whole or not at all.
    """
    (folder / "qrels").mkdir(parents=True)
    documents = zip(collection.document_ids, collection.titles, collection.texts, strict=True)
    _write_lines(
        folder / "corpus.jsonl.gz",
        ({"_id": name, "title": title, "text": text} for name, title, text in documents),
    )
    queries = zip(collection.query_ids, collection.queries, strict=True)
    _write_lines(
        folder / "queries.jsonl.gz", ({"_id": name, "text": text} for name, text in queries)
    )
    if collection.answers:
        _write_lines(
            folder / "answers.jsonl.gz",
            ({"_id": name, "answers": found} for name, found in sorted(collection.answers.items())),
        )
    for split in SPLITS:
        qrels = collection.qrels[split]
        rows = zip(qrels.query, qrels.document, qrels.relevance, strict=True)
        lines = ["query-id\tcorpus-id\tscore"]
        lines += [
            f"{collection.query_ids[q]}\t{collection.document_ids[d]}\t{r}" for q, d, r in rows
        ]
        path = folder / "qrels" / f"{split}.tsv"
        path.write_bytes(("\n".join(lines) + "\n").encode())
    manifest = {
        "name": collection.name,
        "version": collection.version,
        "content_hash": collection.content_hash,
        "documents": len(collection),
        "queries": len(collection.query_ids),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_artefact(folder: Path) -> Collection:
    """Read the collection of a run directory, its files checked by their hashes."""
    return read(fetched(folder) / TEXTS)


def read(folder: Path) -> Collection:
    """Read what `write` wrote, and check it against the manifest.

    Raises
    ------
    DatasetError
        A file is missing or malformed, or the content is not what the manifest says.
    """
    name, version, expected = _read_manifest(folder / MANIFEST)
    collection = beir.read_folder(folder, name=name, version=version)
    if collection.content_hash != expected:
        raise DatasetError(
            f"{folder} holds content {collection.content_hash}",
            expected=f"content {expected}, as its {MANIFEST} says",
            fix=_FIX,
        )
    return collection


def _read_manifest(path: Path) -> tuple[str, str, str]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        name, version, found = (manifest[key] for key in ("name", "version", "content_hash"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        missing = isinstance(error, FileNotFoundError)
        found = "missing" if missing else f"damaged ({type(error).__name__}: {error})"
        raise DatasetError(
            f"{path} is {found}",
            expected="name, version and content_hash as JSON, as genret-dask wrote them",
            fix=_FIX,
        ) from error
    return str(name), str(version), str(found)


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    # No file name and no time in the gzip header: equal content, equal bytes.
    with (
        open(path, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file,
    ):
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
