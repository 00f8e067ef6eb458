"""What every kind of identifier brings: its settings, and all that a study asks of it.

A study never asks which kind it has: it calls these methods. One file adds a kind. Where all
identifiers have one length, it subclasses `genret_dask.kinds.fixed.FixedLength` and has two
methods; `genret_dask.kinds.codes` is such a file, and docs/extending.md a shorter one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from genret_dask.cube.schema import Variables
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.pairs import Pairs
from genret_dask.errors import DatasetError, ModelError
from genret_dask.identifiers import Codes
from genret_dask.inference.memory import Decoding
from genret_dask.inference.session import Session
from genret_dask.models.flops import Architecture, prefill_flops, step_flops
from genret_dask.models.manifest import Manifest
from genret_dask.specs import Name
from genret_dask.specs.validation import Record
from genret_dask.storage.artefacts import RECORD, Artefact
from genret_dask.storage.fingerprint import Origin

IGNORED = -100
"""Label of padding, as PyTorch's cross-entropy has it: no loss sees it."""

Arrays = dict[str, np.ndarray]
"""Variables of one dataset of the cube, each [queries, ...]."""


@dataclass(frozen=True)
class Source:
    """What identifiers are made from.

    Attributes
    ----------
    collection : Collection
    place : Path
        The collection's artefact, for tasks that read it themselves.
    tokenizer : Path or None
        The tokeniser's artefact; None for kinds that are not made of its tokens.
    working : Path
        A folder for parts that tasks leave each other; it goes when the identifiers are there.
    seed : int
    report : callable
        Gets a stage, the work done and the work in all.
    map : callable
        Runs a function over tasks, by Dask where there is a cluster: `map(stage, function, tasks,
        names, cost=...)`.
    kept : Path or None
        A folder of this machine for what documents that are added later need.
    """

    collection: Collection
    place: Path
    tokenizer: Path | None
    working: Path
    seed: int
    report: Callable[[str, float, float], None]
    map: Callable[..., list[Any]]
    kept: Path | None = None


@dataclass(frozen=True)
class Making:
    """What making identifiers, or another artefact, takes by estimate.

    Attributes
    ----------
    client_seconds, task_seconds : float
        Of one core: in the process that runs the study, and in tasks, which run side by side.
    bytes_kept, bytes_working : int
        On disk: of the artefact, and of files that are removed once it is there.
    client_bytes, task_bytes : int
        Memory of that process and of the widest task, without the process itself; 0 without tasks.
    stage : str
        Of the tasks.
    fix : callable
        Names the setting by which no task takes more than so many bytes.
    """

    client_seconds: float = 0.0
    task_seconds: float = 0.0
    bytes_kept: int = 0
    bytes_working: int = 0
    client_bytes: int = 0
    task_bytes: int = 0
    stage: str = ""
    fix: Callable[[int], str] = lambda nbytes: "take a smaller collection"


@dataclass(frozen=True)
class Shape:
    """What identifiers are to a model.

    Attributes
    ----------
    rows : int
        Vocabulary rows that they add to it.
    steps : int
        Tokens of an identifier, at most.
    """

    rows: int
    steps: int


@dataclass(frozen=True)
class Explained:
    """What a model generates for one query.

    Attributes
    ----------
    identifiers : list of dict
        identifier (as text), score (log-probability), documents (their rows), and what else the
        kind tells of it.
    documents : list of (row, score, evidence)
        By rank; evidence is a list of (identifier, what it adds to the score).
    """

    identifiers: list[dict[str, Any]] = field(default_factory=list)
    documents: list[tuple[int, float, list[tuple[str, float]]]] = field(default_factory=list)


@dataclass(frozen=True)
class Diagnosis:
    """What identifiers that are there are like, whatever model uses them.

    Attributes
    ----------
    facts : dict
        Numbers and texts by what they are called, words joined by underscores; ready for JSON.
    levels : list of dict
        Of identifiers with levels: as `genret_dask.identifiers.diagnostics.level_records`.
    """

    facts: dict[str, Any]
    levels: list[dict[str, Any]] = field(default_factory=list)


class Targets(Protocol):
    """The labels of training pairs.

    Attributes
    ----------
    length : int
        Steps of a label.
    """

    length: int

    def labels(self, pairs: Pairs, visit: np.random.Generator) -> np.ndarray:
        """Return labels of pairs, int64[pairs, length], `IGNORED` behind the end.

        Parameters
        ----------
        visit : numpy.random.Generator
            Chooses where a pair has several identifiers.
        """
        ...


class Sampler(Protocol):
    """Chooses identifiers of a document that has many."""

    def sample(self, query: str, document: int) -> np.ndarray:
        """Choose for a text; int32[choices, 2], -1 where the document has no identifier."""
        ...


class Decoder(Protocol):
    """A model and the identifiers that it generates.

    Attributes
    ----------
    decoding : Decoding
        What it takes, in bytes.
    """

    @property
    def decoding(self) -> Decoding: ...

    def search(self, tokens: np.ndarray, lengths: np.ndarray) -> Arrays:
        """Return the cube's search variables of padded queries."""
        ...

    def score(
        self, tokens: np.ndarray, lengths: np.ndarray, queries: np.ndarray, part: slice
    ) -> Arrays:
        """Return the cube's contrast variables of some candidates.

        Parameters
        ----------
        queries : int64[queries]
            Rows of the candidates.
        part : slice
            Of each query's candidates.
        """
        ...


class Kind(Record):
    """A kind of identifier: an entry of a study's `identifiers:`, by its `kind`.

    A subclass is found by the entry-point group `genret_dask.identifiers` of `pyproject.toml`,
    under the value of its field `kind`. In the methods a space is what `open` returned.

    Attributes
    ----------
    noun : str
        An identifier, for people.
    per_tokenizer : bool
        Whether identifiers are made of a tokeniser's tokens, so that each tokeniser has its own.
    record_name : str
        The file of the artefact that tells what it was made from.
    """

    kind: str
    name: Name | None = Field(None, description="of these identifiers; their kind")
    noun: ClassVar[str]
    per_tokenizer: ClassVar[bool] = False
    record_name: ClassVar[str] = RECORD

    @property
    @abstractmethod
    def variables(self) -> Variables:
        """What shards write into the cube, by dataset and name; all begin with model and query."""

    @property
    def label(self) -> str:
        """What names these identifiers among those of a study: in its cube and its folders."""
        return self.name or self.kind

    # --- before any work ----------------------------------------------------------------------

    def problems(self) -> Iterator[str]:
        """Tell what is wrong with the settings, as far as it shows before any work."""
        yield from ()

    def refusals(self, collection: Collection) -> Iterator[str]:
        """Tell why a collection cannot have such identifiers, as far as it shows before any work.

        It is asked where the identifiers are still to be made.
        """
        yield from ()

    def lacking(self, vocabulary: Mapping[str, int]) -> Iterator[str]:
        """Tell which tokens of the identifiers a model's own tokeniser lacks, before any work."""
        yield from ()

    def settings(self) -> dict[str, Any]:
        """Return all that search and training depend on; files by their bytes."""
        return self.model_dump(mode="json", exclude={"name"})

    @abstractmethod
    def made_from(self, corpus: str, seed: int, tokenizer: str | None) -> Origin:
        """Return what the identifiers are made from.

        Parameters
        ----------
        corpus : str
            Content hash of the collection.
        tokenizer : str or None
            SHA-256 of the tokeniser's file, for kinds that are made of its tokens.
        """

    # --- size, for plans and for the cube -----------------------------------------------------

    @property
    def choices(self) -> int:
        """Identifiers that stand for a document in a text's pair; 0 where it has just one."""
        return 0

    @property
    def steps(self) -> int | None:
        """Steps of an identifier where the settings alone tell them."""
        return None

    @abstractmethod
    def planned(self, documents: int) -> Shape:
        """Return the largest shape that the identifiers of so many documents will have."""

    @abstractmethod
    def shape(self, folder: Path) -> Shape:
        """Return the shape of identifiers that are there, without opening them."""

    @abstractmethod
    def plan(
        self, architecture: Architecture, collection: Collection, beams: tuple[int, ...]
    ) -> Decoding:
        """Return what decoding will take, at most, before the identifiers are there."""

    @abstractmethod
    def sizes(self, beams: tuple[int, ...], documents: int) -> dict[str, int]:
        """Return the extent of `rank`, and of the kind's own dimensions of the cube."""

    def making(self, collection: Collection, vocabulary: int) -> Making:
        """Return what `build` will take; by default that of a kind that is made at once.

        Parameters
        ----------
        vocabulary : int
            Tokens of the tokeniser, for kinds that are made of its tokens.
        """
        documents = len(collection)
        return Making(client_seconds=1e-4 * documents, bytes_kept=64 * documents)

    # --- making and opening -------------------------------------------------------------------

    @abstractmethod
    def build(self, made: Artefact, source: Source) -> None:
        """Make the identifiers of a collection: publish the artefact `made`.

        Raises
        ------
        GenretError
            The collection cannot have such identifiers.
        """

    def extend(self, made: Artefact, source: Source, old: Path) -> None:
        """Make identifiers of a collection that has more documents; those that it had stay.

        Parameters
        ----------
        old : Path
            Identifiers of the first documents, with which the models were trained.

        Raises
        ------
        DatasetError
            Such identifiers cannot be given to further documents, or have no room for them.
        """
        raise DatasetError(
            f"{self.label} identifiers of documents that a model was not trained on mean nothing",
            expected="codes, or a kind made of the model's own tokens",
            fix="train models of all documents",
        )

    def check(self, folder: Path, collection: Collection) -> None:
        """Refuse identifiers that are there, or log what is missing of them."""
        return

    def without_identifiers(self, folder: Path) -> np.ndarray:
        """Return the rows of documents that have no identifier of their own; int64[n]."""
        return np.empty(0, dtype=np.int64)

    @abstractmethod
    def open(self, folder: Path) -> Any:
        """Open identifiers that are there; arrays are mapped, so that processes share them.

        Raises
        ------
        ModelError
            A file is missing or damaged.
        """

    def diagnostics(self, folder: Path, collection: Collection) -> Diagnosis:
        """Describe identifiers that are there; by default by what every kind tells of them."""
        shape = self.shape(folder)
        return Diagnosis(
            {
                "documents": len(collection),
                "without_identifier": len(self.without_identifiers(folder)),
                "vocabulary_rows": shape.rows,
                "steps": shape.steps,
            }
        )

    # --- training -----------------------------------------------------------------------------

    def sampled_from(self) -> dict[str, Any]:
        """Return the settings that the choices depend on; of kinds with `choices`."""
        return self.settings()

    def sampler(self, collection: Collection, tokenizer: Path, seed: int) -> Sampler:
        """Return what chooses identifiers for texts; of kinds with `choices`.

        Parameters
        ----------
        tokenizer : Path
            Its tokenizer.json.
        """
        raise NotImplementedError

    @abstractmethod
    def targets(
        self, space: Any, start_token: int, end_token: int, sampler: Sampler | None
    ) -> Targets:
        """Return the labels that a model is taught.

        Parameters
        ----------
        start_token : int
            The token that opens an identifier; new vocabulary rows follow it.
        end_token : int
            Of the model's text.
        sampler : Sampler or None
            What `sampler` returned, of kinds with `choices`.
        """

    def new_rows(self, space: Any) -> Codes | None:
        """Return the codes whose rows a model may start from; None where it adds no rows."""
        return None

    # --- search -------------------------------------------------------------------------------

    def require_match(self, space: Any, manifest: Manifest, corpus: str, folder: Path) -> None:
        """Refuse identifiers that the model, or the cube, was not made with."""
        return

    @abstractmethod
    def within(self, space: Any, documents: np.ndarray) -> Any:
        """Return identifiers that a search finds some documents by, and no others.

        Parameters
        ----------
        documents : int64[n]
            Their rows, ascending. Identifiers of all others can still be scored.
        """

    @abstractmethod
    def decoder(
        self,
        session: Session,
        space: Any,
        beams: tuple[int, ...],
        candidates: np.ndarray,
        chosen: np.ndarray | None,
    ) -> Decoder:
        """Return what searches and scores.

        Parameters
        ----------
        candidates : int32[queries, candidates]
            Documents to score; -1 is none.
        chosen : int32[queries, candidates, choices, 2] or None
            What `sampler` chose for each, of kinds with `choices`.
        """

    @abstractmethod
    def explain(
        self,
        session: Session,
        space: Any,
        tokenizer: Tokenizer,
        beam: int,
        tokens: np.ndarray,
        lengths: np.ndarray,
    ) -> Explained:
        """Search one padded query, and tell how its documents were found."""


def tokenizer_of(manifest: Manifest) -> str:
    """Return the SHA-256 of the tokeniser that a model reads with."""
    return manifest.files.get("tokenizer.json", "none")


def require_same(folder: Path, name: str, found: str, expected: str) -> None:
    """Refuse identifiers that were made with another tokeniser, or of another collection.

    Raises
    ------
    ModelError
    """
    if found != expected:
        raise ModelError(
            f"the identifiers at {folder} were made with another {name} ({found})",
            expected=f"{expected}, which the model and the cube were made with",
            fix=f"remove {folder} and run the sweep again",
        )


def costs(session: Session, lengths: np.ndarray, rows_decoded: np.ndarray) -> Arrays:
    """Count the operations of a search at each beam size alone, and the prefixes it decodes.

    Parameters
    ----------
    rows_decoded : int32[queries, beams, steps]
    """
    architecture = session.manifest.architecture
    prefill = prefill_flops(architecture, lengths)
    steps = np.stack(
        [step_flops(architecture, lengths, step) for step in range(rows_decoded.shape[-1])], axis=-1
    )
    return {
        "flops": prefill[:, None] + (rows_decoded * steps[:, None, :]).sum(axis=-1),
        "rows_decoded": rows_decoded.sum(axis=-1),
    }
