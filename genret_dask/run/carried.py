"""What a model's folder carries beside its graphs, so that it answers wherever it is copied to.

``carried/search.json`` (which identifiers, and how queries are read), ``carried/identifiers`` and
``carried/collection``. On a file system they are hard links to those of the run, which take no room
beside them; a copy of the folder holds them whole.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genret_dask.errors import InputError, ModelError
from genret_dask.kinds.base import Kind
from genret_dask.models.manifest import MANIFEST, read_manifest
from genret_dask.run.spec import is_run, read_run_spec
from genret_dask.specs.registry import entry
from genret_dask.specs.validation import validate
from genret_dask.storage.artefacts import RECORD, record_of
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import files_in, is_local, link_tree, names_in, place_of
from genret_dask.storage.records import dump_record, parse_record, read_record

CARRIED = "carried"
FACTS = "search.json"
"""The record of which identifiers a carrying model generates, and how it reads queries."""


@dataclass(frozen=True)
class Place:
    """Where a model is, and all that a search with it needs.

    Attributes
    ----------
    model, identifiers, collection : Path
        Folders.
    kind : Kind
    name : str
        Of the model.
    max_tokens : int
        Kept of each query.
    """

    model: Path
    identifiers: Path
    collection: Path
    kind: Kind
    name: str
    max_tokens: int

    @classmethod
    def of(cls, place: Path | str, model: str | None = None, label: str | None = None) -> Place:
        """Find a model: one of a run, or one whose folder is given.

        Parameters
        ----------
        model : str, optional
            Of a run: its name; needed where there are several.
        label : str, optional
            Of a run: the name of its identifiers; needed where the model has several.

        Raises
        ------
        InputError
            The place is neither a run nor a model that can be searched with, or has no such model,
            or several and none was named.
        """
        folder = place_of(place)
        if (folder / MANIFEST).is_file():
            if model is not None or label is not None:
                raise InputError(
                    f"{folder} is one model, and a model or identifiers were named",
                    expected="those of a run's directory",
                    fix="leave them out",
                )
            return cls._carried(folder)
        if not is_run(folder):
            read_run_spec(folder)  # says what is there in its place
        return cls._of_run(folder, model, label)

    @classmethod
    def _of_run(cls, folder: Path, model: str | None, label: str | None) -> Place:
        spec, layout = read_run_spec(folder), RunLayout(folder)
        kinds = {one.label: one for one in spec.identifiers}
        if label is not None and label not in kinds:
            raise InputError(f"{folder} has no identifiers {label!r}", expected=_one_of(kinds))
        found = {
            f"{one} of {name}" if len(kinds) > 1 else one: (name, one)
            for name in ([label] if label else kinds)
            for one in sorted(names_in(layout.model(name)))
            if model in (None, one) and (layout.model(name, one) / MANIFEST).is_file()
        }
        if len(found) != 1:
            every = sorted({one for name in kinds for one in names_in(layout.model(name))})
            wanted = "" if model is None else f" {model!r}"
            text = f"several models{wanted}" if found else f"no model{wanted}"
            raise InputError(
                f"{folder} has {text}",
                expected=_one_of(found or every) if found or every else "models, exported",
                fix="name one: model or --model, and its identifiers or --identifiers",
            )
        ((name, one),) = found.values()
        place, kind = layout.model(name, one), kinds[name]
        digest = None
        if kind.per_tokenizer:
            digest = read_manifest(place, verify=False).files["tokenizer.json"]
        identifiers = layout.identifiers(name, digest)
        return cls(place, identifiers, layout.collection, kind, one, spec.max_tokens)

    @classmethod
    def _carried(cls, folder: Path) -> Place:
        carried = folder / CARRIED
        try:
            facts = parse_record((carried / FACTS).read_bytes(), carried / FACTS)
            settings, name, most = (facts[key] for key in ("identifiers", "model", "max_tokens"))
            kind = validate(
                entry("identifiers", settings["kind"]), settings, source=str(carried / FACTS)
            )
        except FileNotFoundError as error:
            raise InputError(
                f"{folder} is a model without {CARRIED}/{FACTS}",
                expected="a model that a finished sweep left, with its identifiers",
                fix="run the sweep again, which adds them, or give the run's directory",
            ) from error
        except (OSError, KeyError, TypeError) as error:
            raise ModelError(f"{carried / FACTS} is damaged: {error!r}") from error
        return cls(folder, carried / "identifiers", carried / "collection", kind, name, most)

    def check_corpus(self, corpus: str) -> None:
        """Refuse identifiers of another collection than the one that lies beside them.

        Parameters
        ----------
        corpus : str
            The collection's content hash.

        Raises
        ------
        ModelError
        """
        record = record_of(self.identifiers, self.kind.record_name, {})
        found = (record.get("made_from") or {}).get("collection")
        if found not in (None, corpus):
            raise ModelError(
                f"the identifiers at {self.identifiers} are of another collection than the one at "
                f"{self.collection}: {str(found)[:12]} and {corpus[:12]}",
                expected="those of one run",
                fix="copy the model's folder again, whole",
            )


def _one_of(names: Any) -> str:
    return f"one of {', '.join(names)}"


def carry(place: Place) -> None:
    """Link what a search needs into the model's folder, unless it is there.

    Does nothing in an object store, which has no links; there a search opens the run.
    """
    if not is_local(place.model):
        return
    carried = place.model / CARRIED
    settings = {**place.kind.model_dump(mode="json")}
    made = {
        name: json.loads((source / record).read_bytes()).get("fingerprint")
        for name, source, record in (
            ("identifiers", place.identifiers, place.kind.record_name),
            ("collection", place.collection, RECORD),
        )
    }
    facts = {
        "model": place.name,
        "identifiers": settings,
        "max_tokens": place.max_tokens,
        "made_from": made,
    }
    content = dump_record(facts)
    sources = {"identifiers": place.identifiers, "collection": place.collection}
    is_same = all(_holds(carried / name, source) for name, source in sources.items())
    if is_same and (carried / FACTS).is_file() and (carried / FACTS).read_bytes() == content:
        return
    shutil.rmtree(carried, ignore_errors=True)
    carried.mkdir()
    for name, source in sources.items():
        link_tree(source, carried / name)
    (carried / FACTS).write_bytes(content)


def check_carried(folder: Path) -> None:
    """Check the facts in a model's folder `carried` against their own hash.

    Raises
    ------
    ModelError
    """
    read_record(folder / FACTS)


def _holds(folder: Path, source: Path) -> bool:
    """Whether a folder has every file of a source: as a link, or a copy of its size and time."""
    return all(_is_same(folder / name, source / name) for name in files_in(source))


def _is_same(one: Path, other: Path) -> bool:
    try:
        mine, its = one.stat(), other.stat()
    except OSError:
        return False
    linked = (mine.st_dev, mine.st_ino) == (its.st_dev, its.st_ino)
    return linked or (mine.st_size, mine.st_mtime_ns) == (its.st_size, its.st_mtime_ns)
