"""What every dataset brings: the settings that name it, and how it is loaded."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from pydantic import Field

from genret_dask.datasets import stored
from genret_dask.datasets.collection import SPLITS, Collection
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.specs import PositiveInt, Whole
from genret_dask.specs.validation import Record
from genret_dask.storage.sources import contents, paths_in

MAIN_METRIC = "recall@10"
"""The metric of collections that name none."""


class Dataset(Record):
    """A kind of collection: `dataset:` of a study, by its `kind`.

    A subclass is an entry of `genret_dask.datasets` under the value of its field `kind`. Its
    docstring begins with the line that `genret-dask datasets list` shows, and fields of type `Path`
    and lists of it are the files whose place plays no part in what is made from it.

    Attributes
    ----------
    needs : str
        What has to be there, for people.
    example : str
        The YAML of a study that names it.
    loading_seconds : float
        What loading takes however small the collection is.
    """

    kind: str
    documents: PositiveInt | None = Field(
        None, description="keep this many: those judged for dev and test, for train, then others"
    )
    seed: Whole = Field(0, description="of the documents that are kept")
    needs: ClassVar[str]
    example: ClassVar[str]
    loading_seconds: ClassVar[float] = 0.0

    def by_split(self) -> dict[str, Any]:
        """Return the values of the fields train, dev and test, without those that are None."""
        return {split: found for split in SPLITS if (found := getattr(self, split)) is not None}

    @property
    def title(self) -> str:
        """What the collection is called."""
        return self.kind

    @property
    def version(self) -> str:
        """Which build of it this is."""
        return self.fingerprint()

    @property
    def main_metric(self) -> str:
        """The metric that its results are told by, where nobody asks for another one.

        It is written into the cube. Laws, plans, comparisons and the report take it.
        """
        return MAIN_METRIC

    @abstractmethod
    def read(self, into: CollectionWriter) -> None:
        """Give the collection to a writer, row by row: a function of the settings and the sources.

        Raises
        ------
        DatasetError
            The source is missing, malformed, incomplete or empty.
        """

    def facts(self) -> dict[str, Any]:
        """Return JSON values that stand in the collection's record and in the cube."""
        return {}

    def place(self, what: str, row: int) -> str:
        """Name where row number `row` of the documents, queries or judgements is in the source.

        `what` is "document", "query" or "judgement"; judgements count in the order of `read`.
        """
        return f"{what} {row + 1}"

    def load(self, folder: Path | None = None) -> Collection:
        """Read the collection into a folder of columns, or into a file without a name, and map it.

        Raises
        ------
        DatasetError
            What `read` raises; an id is repeated, judgements name unknown ids, or more documents
            are judged for dev and test than are to be kept.
        """
        with ExitStack() as stack:
            if folder is None:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="genret-columns-")))
            keep = self.documents, self.seed
            return stored.build(folder, self.title, self.version, self.read, self.place, *keep)

    def settings(self) -> dict[str, Any]:
        """Return the settings as a fingerprint sees them: bytes stand for places.

        A setting of all kinds that is left at its default is not among them.
        """
        own, fields = type(self).__annotations__, type(self).model_fields
        unset = [
            name
            for name in ("documents", "seed")
            if name not in own and getattr(self, name) == fields[name].default
        ]
        places = [name for name, value in self if paths_in(value)]
        return contents(self, *places, *unset, bytes=self.fingerprint())

    @abstractmethod
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits over the sources and a kind's own settings, unloaded.

        Raises
        ------
        DatasetError
            A file or a library is missing.
        """
