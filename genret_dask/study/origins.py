"""What every artefact of a study is made from, and where it lies: known without making any.

The stages make what `Origins` names, and `genret_dask.study.survey` compares it with what is there:
both read the same origins, so a plan and a run cannot disagree.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache as memoised
from functools import cached_property
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from genret_dask.baselines import Baseline
from genret_dask.cube.store import FORMAT
from genret_dask.datasets import stored
from genret_dask.datasets.checks import check_usable
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.given import write_given
from genret_dask.datasets.lines import hash_of
from genret_dask.datasets.words import RULES
from genret_dask.errors import DatasetError, InputError, ModelError
from genret_dask.kinds import Kind
from genret_dask.models.manifest import MANIFEST
from genret_dask.specs import ModelSpec, PairsSpec, PretrainedSpec, SweepSpec
from genret_dask.specs.grid import Cell, cells_of, models_of
from genret_dask.specs.sweep import MOST_DOCUMENTS
from genret_dask.storage.artefacts import RECORD, Artefact, record_of
from genret_dask.storage.fingerprint import Origin, fingerprint
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import cache
from genret_dask.storage.records import read_record
from genret_dask.storage.sources import contents, source_hash, tokenizer_hash, weights_hash

logger = logging.getLogger(__name__)

_OF_CANDIDATES = ("split", "queries", "negatives", "ignore_identical_ids")

_SINCE = ("prompt", "n_train", "train_flops")
"""Settings of a model that say nothing where they are not set."""

_LEAST_DEPTH = 100
"""Documents that a baseline ranks for a query, however small the beams are."""

UNKNOWN = "not known before what it is made from"
"""Stands for a hash that only a finished artefact can tell."""


class Origins:
    """The artefacts of a study, each with its folder and what it is made from.

    Parameters
    ----------
    spec : SweepSpec
    folder : Path
        The run directory.
    """

    def __init__(self, spec: SweepSpec, folder: Path) -> None:
        self.spec, self.layout = spec, RunLayout(folder)
        self._weights = memoised(_weights)
        kinds = {kind.label: kind for kind in spec.identifiers}
        self._settings = memoised(lambda kind: kinds[kind].settings())
        self._space_origin = memoised(
            lambda kind, digest: kinds[kind].made_from(self.content_hash, spec.seed, digest)
        )
        self._excluded_rows: np.ndarray | None = None
        self._behind: dict[Path, int | None] = {}

    # --- text ---------------------------------------------------------------------------------

    @cached_property
    def collection(self) -> Artefact:
        """The collection, by the bytes of its source."""
        parts = {"dataset": self.spec.dataset.settings()}
        return Artefact(self.layout.collection, Origin("collection", parts))

    @cached_property
    def _reading(self) -> TemporaryDirectory[str]:
        with suppress(OSError):  # a host whose cache cannot be written to
            cache().mkdir(parents=True, exist_ok=True)
            return TemporaryDirectory(prefix="collection-", dir=cache())
        return TemporaryDirectory(prefix="collection-")

    @property
    def loaded_in(self) -> Path:
        """Where the columns of a collection lie that is no artefact yet."""
        return Path(self._reading.name)

    @cached_property
    def loaded(self) -> Collection:
        """The collection: the run's where that is current, else as its source has it."""
        if self.collection.state == "done":
            collection = stored.read_artefact(self.collection.folder)
        else:
            collection = self.spec.dataset.load(self.loaded_in)
        check_usable(collection, self.spec.inference.split, self._pairs_spec)
        return collection

    @cached_property
    def content_hash(self) -> str:
        """Of the collection: of the run directory's, where that is current."""
        if self.collection.state == "done":
            return str(record_of(self.collection.folder)["content_hash"])
        return self.loaded.content_hash

    @property
    def _pairs_spec(self) -> PairsSpec | None:
        """None where nothing is trained."""
        trains = self.spec.models_from is None and any(
            model.checkpoint is None for model in self.spec.models
        )
        return self.spec.training.pairs if trains else None

    @cached_property
    def pairs(self) -> Artefact | None:
        """The training pairs of the user's files, by their bytes; None where there are none."""
        if self._pairs_spec is None or not self._pairs_spec.file:
            return None
        parts = {"collection": self.content_hash, "bytes": self._pairs_bytes}
        return Artefact(self.layout.pairs, Origin("pairs", parts))

    @cached_property
    def loaded_pairs(self) -> Path:
        """Where those pairs lie that are no artefact yet."""
        return write_given(self.loaded, self.spec.training.pairs.file, self.loaded_in / "pairs")

    @cached_property
    def _pairs_bytes(self) -> list[str]:
        return [hash_of(path) for path in self.spec.training.pairs.file]

    def tokenizer(self, model: ModelSpec) -> Artefact:
        """The tokeniser that a model reads with: the study's, or its pretrained weights' own."""
        if self.spec.models_from is not None:
            own_label = None if model.source is None else model.label
            return self._taken("tokenizer", self.layout.tokenizer(own_label))
        if model.source is not None:
            own = {"pretrained": self._weights(model.source, tokenizer=True)}
            return Artefact(self.layout.tokenizer(model.label), Origin("tokenizer", own))
        settings = {"tokenizer": self.spec.tokenizer, "words": RULES}
        parts = {"collection": self.content_hash, **settings}
        return Artefact(self.layout.tokenizer(), Origin("tokenizer", parts))

    def tokenizer_digest(self, model: ModelSpec) -> str:
        """SHA-256 of a model's tokenizer.json; `UNKNOWN` before it is made."""
        tokenizer = self.tokenizer(model)
        if tokenizer.state != "done":
            return UNKNOWN
        try:
            return str(record_of(tokenizer.place)["files"]["tokenizer.json"])
        except KeyError as error:
            raise ModelError(
                f"the tokeniser of {model.label} has no tokenizer.json",
                expected="a fast tokeniser of transformers",
                fix="save one with tokenizer.save_pretrained into the folder of the weights",
            ) from error

    # --- identifiers --------------------------------------------------------------------------

    def space(self, kind: Kind, model: ModelSpec) -> Artefact:
        """The identifiers that a model generates: of its tokeniser, where they are made of it."""
        digest = self.tokenizer_digest(model) if kind.per_tokenizer else None
        folder = self.layout.identifiers(kind.label, digest)
        if self.spec.models_from is not None and not kind.per_tokenizer:
            if not self._has_more_documents(kind):
                return self._taken("identifiers", folder, kind.record_name)
            return Artefact(folder, self._grown(kind), kind.record_name)
        origin = self._space_origin(kind.label, digest)
        made = Artefact(folder, origin, kind.record_name, elsewhere=self._theirs(folder))
        return made if made.state == "done" else replace(made, elsewhere=None)

    def candidate_spans(self, kind: Kind, model: ModelSpec) -> Artefact:
        """The identifiers that stand for each candidate; those of more queries hold these."""
        space = self.space(kind, model)
        parts = {
            "candidates": self.candidates.fingerprint,
            "index": space.fingerprint,
            "identifiers": kind.sampled_from(),
            "seed": self.spec.seed,
            "words": RULES,
        }
        folder = self.layout.spans(f"candidates-{space.folder.name}")
        return Artefact(folder, Origin("spans", parts), grows=("candidates",))

    # --- candidates ---------------------------------------------------------------------------

    @property
    def candidates(self) -> Artefact:
        """Positives and negatives of the queries; those of more queries hold these."""
        spec = self.spec.inference
        parts = {
            "collection": self.content_hash,
            "inference": {name: getattr(spec, name) for name in _OF_CANDIDATES},
            "seed": self.spec.seed,
            "documents without identifiers": self._excluded,
        }
        # Of another model's tokeniser, other documents may lack identifiers: what that changes of
        # the candidates, the shards that read them tell.
        grows = ("inference.queries", "documents without identifiers")
        return Artefact(self.layout.candidates, Origin("candidates", parts), grows=grows)

    @property
    def _excluded(self) -> str:
        rows = self.without_identifiers()
        return UNKNOWN if rows is None else fingerprint(rows.tolist())

    def without_identifiers(self) -> np.ndarray | None:
        """Documents that lack identifiers of their own in one of the study's spaces.

        Returns
        -------
        int64[n] or None
            None while a space is still to be made.
        """
        if self._excluded_rows is None:
            spaces: dict[Path, tuple[Kind, Artefact]] = {}
            for cell in cells_of(self.spec):
                made = self.space(cell.identifiers, cell.model)
                spaces.setdefault(made.folder, (cell.identifiers, made))
            found = np.empty(0, dtype=np.int64)
            for kind, made in spaces.values():
                if kind.per_tokenizer and made.state != "done":
                    return None
                if made.state == "done":
                    found = np.union1d(found, kind.without_identifiers(made.place))
            self._excluded_rows = found.astype(np.int64)
        return self._excluded_rows

    # --- models -------------------------------------------------------------------------------

    def checkpoint(self, cell: Cell) -> Artefact:
        """The trained weights of a cell."""
        kind, model = cell.identifiers, cell.model
        folder = self.layout.checkpoint(cell.kind, cell.name)
        if self.spec.models_from is not None:
            return self._taken("checkpoint", folder)
        if model.checkpoint is not None:
            own = {"model": self.model(model), "tokenizer": self.tokenizer(model).fingerprint}
            return Artefact(folder, Origin("ready checkpoint", own))
        read = {"tokenizer": self.tokenizer(model), "identifiers": self.space(kind, model)}
        parts = {
            "collection": self.content_hash,
            "words": RULES,
            "model": self.model(model),
            "fraction": cell.fraction,
            "training": self._training(cell),
            "seed": self.spec.seed,
            "max_tokens": self.spec.max_tokens,
            "steps": kind.steps,
            "sampled": kind.sampled_from() if kind.choices else None,
            **{name: one.fingerprint for name, one in read.items()},
        }
        return Artefact(folder, Origin("checkpoint", parts))

    def _training(self, cell: Cell) -> dict[str, Any]:
        """A cell's recipe, with the bytes of the user's pairs where it has any."""
        training = cell.training(self.spec)
        own = {"file": self._pairs_bytes} if training.pairs.file else {}
        return contents(training, "pairs", pairs=contents(training.pairs, "file", **own))

    def model(self, model: ModelSpec) -> dict[str, Any]:
        """A model of the grid as its checkpoint's fingerprint sees it: by its weights' bytes."""
        unimportant = ("name", "fractions", "training", "identifiers", "pretrained", "checkpoint")
        unset = [name for name in _SINCE if getattr(model, name) is None]
        found = contents(model, *unimportant, *unset)
        if model.source is None:
            return found
        source = "pretrained" if model.checkpoint is None else "checkpoint"
        return {**found, source: self._weights(model.source)}

    def weights(self, model: ModelSpec) -> str | None:
        """Fingerprint of the bytes of pretrained weights; None where there are none to compare."""
        taken = self.spec.models_from is not None
        if taken or model.source is None or model.source.hub is not None:
            return None
        return str(self._weights(model.source)["bytes"])

    def exported(self, kind: str, name: str) -> Path:
        """The folder of an exported model; before it is taken over, that of the other run."""
        folder = self.layout.model(kind, name)
        theirs = self._theirs(folder)
        return folder if theirs is None or (folder / MANIFEST).is_file() else theirs

    # --- what is taken from another run -------------------------------------------------------

    def _theirs(self, folder: Path) -> Path | None:
        """The same folder of the run that the models are from, if they are from one."""
        run = self.spec.models_from
        return None if run is None else run / folder.relative_to(self.layout.run)

    def _taken(self, what: str, folder: Path, record: str = RECORD) -> Artefact:
        """An artefact as the run made it that the models are from.

        Raises
        ------
        InputError
            It is in neither run.
        """
        theirs = self._theirs(folder)
        found = read_record(folder / record) or (theirs and read_record(theirs / record))
        if not found:
            raise InputError(
                f"models_from: {self.spec.models_from} has no {what} at {theirs}",
                expected="a run whose models are all trained and exported",
                fix="finish it first",
            )
        return Artefact(folder, Origin.of_record(what, found), record, elsewhere=theirs)

    def grown_from(self, kind: Kind) -> Path | None:
        """The identifiers of the first documents, where the models' run had only these."""
        if self.spec.models_from is None or kind.per_tokenizer:
            return None
        return self._their_identifiers(kind) if self._has_more_documents(kind) else None

    def _their_identifiers(self, kind: Kind) -> Path:
        return RunLayout(self.spec.models_from or Path()).identifiers(kind.label)

    def _grown(self, kind: Kind) -> Origin:
        own = self._compared_before(kind)
        if own is not None:
            return Origin.of_record(kind.kind, own)
        theirs = record_of(self._their_identifiers(kind), kind.record_name, {})
        parts = {"collection": self.content_hash, "grown_from": theirs["fingerprint"]}
        return Origin(kind.kind, parts)

    def _compared_before(self, kind: Kind) -> dict[str, Any] | None:
        """The record of identifiers that are this run's already, of the collection that it has."""
        if self.collection.state != "done":
            return None
        return read_record(self.layout.identifiers(kind.label) / kind.record_name)

    def _has_more_documents(self, kind: Kind) -> bool:
        """Whether further documents stand behind those that the models' run had.

        Raises
        ------
        InputError
            It had others.
        """
        if (own := self._compared_before(kind)) is not None:
            return "grown_from" in own["made_from"]
        place = RunLayout(self.spec.models_from or Path()).collection
        if record_of(place)["content_hash"] == self.content_hash:
            return False
        if place not in self._behind:
            self._behind[place] = _documents_behind(self.loaded, stored.read_artefact(place))
        if (more := self._behind[place]) is not None:
            return more > 0
        raise InputError(
            f"models_from: the {kind.label} of {self.spec.models_from} are identifiers of other "
            f"documents than those of {self.spec.dataset.title}",
            expected="the same documents in the same order, and perhaps more behind them; queries "
            "and judgements may differ",
            fix="take models that generate n-grams or titles, or train models of these documents",
        )

    # --- the documents that are searched ------------------------------------------------------

    @cached_property
    def within(self) -> Artefact | None:
        """The rows of the documents that a search is kept to; None for all.

        Raises
        ------
        DatasetError
            Their file is not there.
        """
        place = self.spec.inference.within
        if place is None:
            return None
        try:
            parts = {"collection": self.content_hash, "bytes": source_hash(place)}
        except OSError as error:
            raise DatasetError(
                f"inference.within: {place} cannot be read: {error.strerror}",
                expected="a file of document ids, one a line",
            ) from error
        return Artefact(self.layout.within, Origin("within", parts))

    def _within(self) -> dict[str, str]:
        return {} if self.within is None else {"within": self.within.fingerprint}

    # --- baselines ----------------------------------------------------------------------------

    @cached_property
    def baselines(self) -> tuple[Baseline, ...]:
        """What the models are compared with; logs a line where BM25 is left out."""
        documents = len(self.loaded) if self.spec.baselines is None else 0
        if documents > MOST_DOCUMENTS:
            logger.warning(
                "the collection has %s documents: above %s there is no BM25 unless the study names "
                "it, as in baselines: [bm25]",
                f"{documents:,}",
                f"{MOST_DOCUMENTS:,}",
            )
        return self.spec.baselines_for(documents)

    @property
    def baseline_depth(self) -> int:
        """Documents that a baseline ranks, where the collection has so many."""
        return max(_LEAST_DEPTH, *self.spec.inference.beams)

    def baseline(self, one: Baseline) -> Artefact:
        """The rankings of a baseline."""
        spec = self.spec.inference
        parts = {
            "collection": self.content_hash,
            "baseline": one.settings(),
            "inference": {
                name: getattr(spec, name) for name in ("split", "queries", "ignore_identical_ids")
            },
            "depth": self.baseline_depth,
            "seed": self.spec.seed,
            **self._within(),
        }
        grows = ("inference.queries", "depth")
        return Artefact(self.layout.baseline(one.label), Origin("baseline", parts), grows=grows)

    # --- the cube -----------------------------------------------------------------------------

    def cube(self, hashes: Mapping[tuple[str, str], str]) -> Origin:
        """What the whole cube is made from.

        Parameters
        ----------
        hashes : dict of (identifier kind, model) to str
            Fingerprints of the exported models; `UNKNOWN` where one is still to be made.
        """
        spec = self.spec
        names = models_of(spec)
        unimportant = {"batch_queries", "threads", "memory", "within"}
        parts = {
            "format": FORMAT,
            "collection": self.content_hash,
            "seed": spec.seed,
            "models": {
                kind: {name: hashes.get((kind, name), UNKNOWN) for name in mine}
                for kind, mine in names.items()
            },
            "order": list(dict.fromkeys(chain.from_iterable(names.values()))),
            "identifiers": {kind.label: self._settings(kind.label) for kind in spec.identifiers},
            "max_tokens": spec.max_tokens,
            "inference": {
                **spec.inference.model_dump(mode="json", exclude=unimportant),
                **self._within(),
            },
        }
        return Origin("cube", parts)

    def search(self, kind: Kind, model: ModelSpec) -> dict[str, Any]:
        """What a model's search depends on, beside the model and the queries."""
        beams = self.spec.inference.beams
        return {
            **self._decoding(kind, model),
            "identifiers": self._settings(kind.label),
            "beams": beams,
            **self._within(),
        }

    def contrast(self, kind: Kind, model: ModelSpec) -> dict[str, Any]:
        """What the losses of a model's candidates depend on, beside the model and they."""
        found = self._decoding(kind, model)
        if kind.choices:
            spans = self.candidate_spans(kind, model).made_from.parts
            found["spans"] = {name: one for name, one in spans.items() if name != "candidates"}
        return found

    def _decoding(self, kind: Kind, model: ModelSpec) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "index": self.space(kind, model).fingerprint,
            "provider": self.spec.inference.provider,
            "max_tokens": self.spec.max_tokens,
        }


def _documents_behind(collection: Collection, other: Collection) -> int | None:
    """Count documents behind those of another collection; None if it does not begin with them."""
    count = len(other)
    columns = [
        [column[:count].digest() for column in (one.document_ids, one.titles, one.texts)]
        for one in (collection, other)
    ]
    return len(collection) - count if columns[0] == columns[1] else None


def _weights(source: PretrainedSpec, *, tokenizer: bool = False) -> dict[str, Any]:
    """Pretrained weights, or their tokeniser, by their bytes; a hub's by its pinned revision."""
    if source.hub is not None:
        return {"hub": source.hub, "revision": source.revision}
    if tokenizer:
        return {"bytes": tokenizer_hash(source.tokenizer_place or Path())}
    return {"bytes": weights_hash(source.path or source.gguf or Path(), source.base)}
