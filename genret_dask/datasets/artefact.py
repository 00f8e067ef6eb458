"""A collection in a run directory: a BEIR folder and the hash of what it must hold."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genret_dask.datasets import beir
from genret_dask.datasets.collection import SPLITS, Collection
from genret_dask.errors import DatasetError, InputError

MANIFEST = "collection.json"


def write(collection: Collection, folder: Path) -> None:
    """Write a collection as a BEIR folder with a manifest; equal collections give equal bytes.

    The folder appears whole or not at all, and replaces one that is already there.

    Raises
    ------
    InputError
        The folder can't be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            fresh = Path(temporary, "new")
            _write_files(collection, fresh)
            _sync(fresh)
            if folder.exists():
                os.rename(folder, Path(temporary, "old"))
            os.rename(fresh, folder)
        _sync_directory(folder.parent)
    except OSError as error:
        raise InputError(
            f"cannot write the collection to {folder}: {error.strerror or error}",
            expected="a folder that can be written",
            fix="check its permissions and the free space",
        ) from error


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
            fix="delete the folder to have it built again",
        )
    return collection


def _read_manifest(path: Path) -> tuple[str, str, str]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        name, version, found = (manifest[key] for key in ("name", "version", "content_hash"))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} is missing",
            expected="a collection that genret-dask wrote",
            fix="delete the folder to have it built again",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{path} is damaged ({type(error).__name__}: {error})",
            expected="name, version and content_hash as JSON",
            fix="delete the folder to have it built again",
        ) from error
    return str(name), str(version), str(found)


def _write_files(collection: Collection, folder: Path) -> None:
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


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    # No file name and no time in the gzip header: equal content, equal bytes.
    with (
        open(path, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file,
    ):
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    for path in (folder, folder / "qrels"):
        _sync_directory(path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
