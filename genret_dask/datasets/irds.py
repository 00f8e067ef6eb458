"""Any collection of the ir_datasets catalogue, one id for each split.

The library downloads what it needs into its own folder (IR_DATASETS_HOME).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any, Literal

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.errors import DatasetError
from genret_dask.storage.fingerprint import fingerprint


class IrDatasetsDataset(Dataset):
    """Any id of the ir_datasets catalogue, one for each split."""

    kind: Literal["ir_datasets"] = "ir_datasets"
    train: str | None = None
    dev: str | None = None
    test: str
    allow_unknown_ids: bool = False

    needs = "the network at first use, or the files in IR_DATASETS_HOME"
    example = """dataset:
  kind: ir_datasets
  train: beir/scifact/train  # train and dev are optional
  test: beir/scifact/test"""

    @property
    def title(self) -> str:
        """The id of the test split."""
        return self.test

    @property
    def version(self) -> str:
        """That of the catalogue."""
        return f"ir-datasets-{metadata.version('ir-datasets')}"

    @property
    def main_metric(self) -> str:
        """MRR@10 of MS MARCO's own queries, as its leaderboard has it; else the default."""
        collection, _, part = self.test.partition("/")
        is_marco = collection.startswith("msmarco-") and not part.startswith("trec-")
        return "mrr@10" if is_marco else super().main_metric

    def read(self, into: CollectionWriter) -> None:
        """Read the test split's documents, and the queries and judgements of each split.

        A document with a title and a text keeps them apart; of any other kind `default_text()` is
        the text. Queries are their `default_text()`; a query of several splits is kept once.

        Raises
        ------
        DatasetError
            An id is unknown, lacks documents, queries or qrels; splits have different documents, or
            different queries under one id; or a download or a record failed.
        """
        into.allow_unknown_ids = self.allow_unknown_ids
        ids = self.by_split()
        datasets = {split: _dataset(name) for split, name in ids.items()}
        for split, dataset in datasets.items():
            with _source(ids[split]):
                shared = _same_documents(ids[split], dataset, ids["test"], datasets["test"])
            if not shared:
                raise DatasetError(
                    f"{ids[split]} ({split}) and {ids['test']} (test) have different documents",
                    expected="splits of one corpus",
                    fix=f"name ids under one parent, or leave dataset.{split} out",
                )
        with _source(ids["test"]):
            for document in datasets["test"].docs_iter():
                into.document(str(document.doc_id), *_title_and_text(document))
        queries: dict[str, str] = {}
        for split, dataset in datasets.items():
            with _source(ids[split]):
                for query in dataset.queries_iter():
                    name, text = str(query.query_id), _text(query)
                    if name not in queries:
                        queries[name] = text
                        into.query(name, text)
                    elif queries[name] != text:
                        raise DatasetError(
                            f"{ids[split]} ({split}) has query {query.query_id} with another text "
                            "than an earlier split",
                            expected="query ids that mean the same query in every split",
                            fix=f"leave dataset.{split} out",
                        )
                for qrel in dataset.qrels_iter():
                    into.judge(split, str(qrel.query_id), str(qrel.doc_id), int(qrel.relevance))

    def fingerprint(self) -> str:
        """Hash of the ids, the settings and the package's version; the catalogue pins the bytes."""
        version = metadata.version("ir-datasets")
        return fingerprint("ir_datasets", self.by_split(), version, self.allow_unknown_ids)


def _dataset(name: str) -> Any:
    import ir_datasets

    try:
        dataset = ir_datasets.load(name)
    except KeyError:
        close = difflib.get_close_matches(name, list(ir_datasets.registry), n=3)
        raise DatasetError(
            f"ir_datasets has no dataset {name!r}",
            expected=f"an id such as {', '.join(close)}" if close else "an id of its catalogue",
            fix="run: ir_datasets list",
        ) from None
    lacking = [part for part in ("docs", "queries", "qrels") if not dataset.has(part)]
    if lacking:
        raise DatasetError(
            f"{name} has no {', '.join(lacking)}",
            expected="a dataset with docs, queries and qrels",
            fix="name one of its subsets, such as .../train, .../dev or .../test",
        )
    return dataset


def _same_documents(name: str, dataset: Any, other_name: str, other: Any) -> bool:
    import ir_datasets

    if name == other_name or dataset.docs_handler() is other.docs_handler():
        return True
    return ir_datasets.docs_parent_id(name) == ir_datasets.docs_parent_id(other_name)


@contextmanager
def _source(name: str) -> Iterator[None]:
    """Name the dataset in whatever goes wrong while it is downloaded, unpacked and parsed."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:
        # Downloads, archives and parsers of hundreds of datasets raise whatever they please.
        reason = " ".join(str(error).split())[:300]
        raise DatasetError(
            f"ir_datasets could not deliver {name}: {type(error).__name__}: {reason}",
            expected="a dataset that downloads, or is already in IR_DATASETS_HOME",
            fix=f"see https://ir-datasets.com/{name.split('/')[0]}.html for how to get it",
        ) from error


def _title_and_text(document: Any) -> tuple[str, str]:
    title, text = getattr(document, "title", None), getattr(document, "text", None)
    if isinstance(title, str) and isinstance(text, str):
        return title, text
    return "", _text(document)


def _text(record: Any) -> str:
    if hasattr(record, "default_text"):
        return str(record.default_text())
    if isinstance(getattr(record, "text", None), str):
        return str(record.text)
    return "\n".join(value for value in record[1:] if isinstance(value, str))
