"""A table of questions and their answers: each answer is a document."""

import csv
from pathlib import Path
from typing import Literal

import numpy as np

from genret_dask.datasets import SPLITS, Collection, Dataset, Qrels
from genret_dask.errors import DatasetError
from genret_dask.storage.fingerprint import fingerprint, sha256_file


class CsvDataset(Dataset):
    """A CSV file with the columns question, answer and split."""

    kind: Literal["csv"] = "csv"
    path: Path

    needs = "a CSV file with the columns question, answer and split (train, dev, test)"
    example = "dataset:\n  kind: csv\n  path: questions.csv"

    def load(self) -> Collection:
        with open(self.path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or {"question", "answer", "split"} - rows[0].keys():
            raise DatasetError(f"{self.path} has no such rows", expected=self.needs)
        splits = np.array([row["split"] for row in rows])
        judged = {split: np.flatnonzero(splits == split) for split in SPLITS}
        return Collection(
            name=self.path.stem,
            version=self.fingerprint(),
            document_ids=tuple(f"d{place}" for place in range(len(rows))),
            titles=("",) * len(rows),
            texts=tuple(row["answer"] for row in rows),
            query_ids=tuple(f"q{place}" for place in range(len(rows))),
            queries=tuple(row["question"] for row in rows),
            qrels={
                split: Qrels.from_rows(places, places, np.ones(len(places)))
                for split, places in judged.items()
            },
        )

    def fingerprint(self) -> str:
        try:
            return fingerprint("csv", sha256_file(self.path))
        except OSError as error:
            raise DatasetError(f"{self.path}: {error.strerror}", expected=self.needs) from error
