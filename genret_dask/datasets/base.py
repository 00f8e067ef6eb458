"""What every dataset brings: the settings that name it, and how it is loaded."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from genret_dask.datasets.collection import SPLITS, Collection
from genret_dask.specs.validation import Record


class Dataset(Record):
    """A kind of collection: `dataset:` of a study, by its `kind`.

    A subclass is an entry of `genret_dask.datasets` under the value of its field `kind`. Its
    docstring begins with the line that `genret-dask datasets list` shows, and fields of type `Path`
    are the files whose place plays no part in what is made from it.

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
    needs: ClassVar[str]
    example: ClassVar[str]
    loading_seconds: ClassVar[float] = 0.0

    def by_split(self) -> dict[str, Any]:
        """Return the values of the fields train, dev and test, without those that are None."""
        return {split: found for split in SPLITS if (found := getattr(self, split)) is not None}

    @abstractmethod
    def load(self) -> Collection:
        """Load the collection: a function of the settings and of their sources alone.

        Raises
        ------
        DatasetError
            The source is missing, malformed, incomplete or empty.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits over the sources and the settings, without loading them.

        Raises
        ------
        DatasetError
            A file or a library is missing.
        """
