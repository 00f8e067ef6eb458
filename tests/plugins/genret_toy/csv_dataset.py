"""A table of questions and their answers: each answer is a document."""

import csv
from pathlib import Path
from typing import Literal

from genret_dask.datasets import CollectionWriter, Dataset
from genret_dask.errors import DatasetError
from genret_dask.storage.fingerprint import fingerprint, sha256_file


class CsvDataset(Dataset):
    """A CSV file with the columns question, answer and split."""

    kind: Literal["csv"] = "csv"
    path: Path

    needs = "a CSV file with the columns question, answer and split (train, dev, test)"
    example = "dataset:\n  kind: csv\n  path: questions.csv"

    def read(self, into: CollectionWriter) -> None:
        with open(self.path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not {"question", "answer", "split"} <= {*(rows.fieldnames or ())}:
                raise DatasetError(f"{self.path} has no such columns", expected=self.needs)
            for number, row in enumerate(rows):
                into.document(f"d{number}", "", row["answer"])
                into.query(f"q{number}", row["question"])
                into.judge(row["split"], f"q{number}", f"d{number}")

    def fingerprint(self) -> str:
        try:
            return fingerprint("csv", sha256_file(self.path))
        except OSError as error:
            raise DatasetError(f"{self.path}: {error.strerror}", expected=self.needs) from error
