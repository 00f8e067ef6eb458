"""What of a study is done, to do, or in its way, seen before any work: for `--dry-run` and the run.

A result that was made from something else is never made anew without being asked: it may have taken
days. What only grows, by models, queries or beams, loses nothing and is not asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genret_dask.cube.store import ROOT, read_attributes
from genret_dask.errors import CubeError, ModelError, StaleError
from genret_dask.identifiers.ngrams import name_of_index
from genret_dask.models.manifest import MANIFEST, read_manifest
from genret_dask.specs import precise_name
from genret_dask.specs.grid import Cell, cells_of
from genret_dask.storage.artefacts import Artefact, State
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import names_in, remove
from genret_dask.storage.records import read_record
from genret_dask.study.origins import UNKNOWN, Origins

STAGES = (
    "collection",
    "pairs",
    "tokenizer",
    "identifiers",
    "spans",
    "candidates",
    "within",
    "baselines",
)
"""Stages before training; then come train, export and search."""

_LISTED = 12  # results in an error's text
_REASONS = 3  # differences of each


@dataclass(frozen=True)
class Step:
    """One result of a study, and what there is of it.

    Attributes
    ----------
    stage : str
    name : str
        Of the result within the run directory.
    place : Path
    state : {"done", "to do", "grows", "stale"}
        There and current; not there; there and to be extended; made from something else.
    why : tuple of str
        What differs from what is there, a line each.
    seconds : float
        What it took the last time; 0 where that is not known, or not worth a word.
    """

    stage: str
    name: str
    place: Path
    state: State
    why: tuple[str, ...] = ()
    seconds: float = 0.0


def survey(origins: Origins) -> list[Step]:
    """Look at every result of a study, in the order of the stages; writes nothing.

    Raises
    ------
    GenretError
        The dataset, weights or a record cannot be read.
    """
    spec, seen = origins.spec, dict[Path, Step]()

    def add(stage: str, made: Artefact) -> Step:
        step = _step(stage, made, origins.layout)
        return seen.setdefault(made.folder, step)

    add("collection", origins.collection)
    if origins.pairs is not None:
        add("pairs", origins.pairs)
    for cell in cells_of(spec):
        add("tokenizer", origins.tokenizer(cell.model))
        add("identifiers", origins.space(cell.identifiers, cell.model))
    add("candidates", origins.candidates)
    if origins.within is not None:
        add("within", origins.within)
    for one in origins.baselines:
        add("baselines", origins.baseline(one))
    for cell in cells_of(spec):
        if cell.identifiers.choices:
            add("spans", origins.candidate_spans(cell.identifiers, cell.model))
    steps = [step for step in seen.values() if UNKNOWN[:12] not in step.place.name]
    models = [step for cell in cells_of(spec) for step in _model_steps(origins, cell)]
    return [*steps, *models, _cube_step(origins, models)]


def _step(stage: str, made: Artefact, layout: RunLayout) -> Step:
    state = made.state
    why = made.differences if state in ("grows", "stale") else ()
    return Step(stage, _name(made.folder, layout), made.folder, state, tuple(why))


def _name(folder: Path, layout: RunLayout) -> str:
    return folder.relative_to(layout.run).as_posix()


def _model_steps(origins: Origins, cell: Cell) -> Iterator[Step]:
    """The checkpoint of a cell, then its exports."""
    made = origins.checkpoint(cell)
    step = _step("train", made, origins.layout)
    # What follows from its tokeniser is known again when that is made.
    waits = step.state == "stale" and _waits_for_tokenizer(origins, cell)
    waits = waits and {*made.differing} <= {"identifiers"}
    if waits:
        step = replace(step, state="done", why=())
    record = read_record(made.place / "training.json") or {}
    yield replace(step, seconds=float(record.get("seconds", 0.0)))
    for precision in origins.spec.export.precision:
        name = precise_name(cell.name, precision)
        folder = origins.layout.model(cell.kind, name)
        place = _name(folder, origins.layout)
        lies = origins.exported(cell.kind, name)
        if not (lies / MANIFEST).is_file():
            yield Step("export", place, folder, "to do")
            continue
        try:
            manifest = read_manifest(lies, verify=False)
        except ModelError as error:
            yield Step("export", place, folder, "stale", (error.found,))
            continue
        found = (manifest.made_from, manifest.precision)
        if waits or found == (made.fingerprint, precision):
            yield Step("export", place, folder, "done")
        else:
            why = f"it was exported from another checkpoint than {step.name}"
            yield Step("export", place, folder, "stale", (why,))


def _waits_for_tokenizer(origins: Origins, cell: Cell) -> bool:
    return cell.identifiers.per_tokenizer and origins.tokenizer(cell.model).state == "to do"


# --- the cube -------------------------------------------------------------------------------------


def _cube_step(origins: Origins, models: Sequence[Step]) -> Step:
    place = origins.layout.cube
    if not (place / ROOT).is_file():
        return Step("search", place.name, place, "to do")
    hashes = {}
    for step in models:
        if step.stage == "export" and step.state == "done":
            kind, name = step.place.parent.name, step.place.name
            lies = origins.exported(kind, name)
            hashes[kind, name] = read_manifest(lies, verify=False).fingerprint
    try:
        attributes = read_attributes(place)
    except CubeError as error:
        return Step("search", place.name, place, "to do", (error.found,))
    now = origins.cube(hashes)
    before = attributes.get("made_from") or {}
    if attributes.get("fingerprint") == now.fingerprint:
        return Step("search", place.name, place, "done" if attributes.get("sealed") else "to do")
    why = tuple(line for line in now.differences(attributes) if UNKNOWN not in line)
    return Step("search", place.name, place, "grows" if grows(before, now) else "stale", why)


def grows(before: Mapping[str, Any], now: Origin) -> bool:
    """Whether a cube of other settings lies within the cube of these: nothing of it is lost.

    It may have fewer models, if they come first, fewer queries, beams and kinds of identifiers.
    """
    after: dict[str, Any] = now.record()["made_from"]
    try:
        old, new = dict(before["inference"]), dict(after["inference"])
        same = ("format", "collection", "seed", "max_tokens")
        return (
            all(before[name] == after[name] for name in same)
            and before["order"] == after["order"][: len(before["order"])]
            and all(_within(before[name], after[name]) for name in ("models", "identifiers"))
            and {*old.pop("beams")} <= {*new.pop("beams")}
            and (old.pop("queries") or float("inf")) <= (new.pop("queries") or float("inf"))
            and old == new
        )
    except (KeyError, TypeError):
        return False  # of another version


def _within(before: Any, after: Any) -> bool:
    """Whether one of nested dicts has all that the other has; what is not known yet agrees."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(name in after and _within(one, after[name]) for name, one in before.items())
    return before == after or after == UNKNOWN


# --- in words -------------------------------------------------------------------------------------


def lines_of(steps: Sequence[Step]) -> list[str]:
    """What there is of a study, for people: a line for each state that any result has."""
    found = []
    for state in ("done", "to do", "grows"):
        mine = [step for step in steps if step.state == state]
        if not mine:
            continue
        several = [stage for stage in ("train", "export") if any(s.stage == stage for s in mine)]
        names = [step.name for step in mine if step.stage not in several]
        counts = [
            f"{stage} {sum(step.stage == stage for step in mine)} of "
            f"{sum(step.stage == stage for step in steps)} models"
            for stage in several
        ]
        reasons = [f"{step.name} ({_reasons(step)})" for step in mine if step.why]
        said = reasons if state == "grows" and reasons else [*names, *counts]
        found.append(f"{state:<11}{', '.join(said)}")
    return found


def left_of(steps: Sequence[Step], stage: str) -> set[str]:
    """Names, as `kind/model`, of the models whose training or export is not done."""
    return {
        f"{step.place.parent.name}/{step.place.name}"
        for step in steps
        if step.stage == stage and step.state != "done"
    }


def shares_left(steps: Sequence[Step]) -> dict[str, float]:
    """The share of each stage's results that are not done; a cube that is not whole counts as 1."""
    counts = Counter(step.stage for step in steps)
    left = Counter(step.stage for step in steps if step.state != "done")
    return {stage: left[stage] / counts[stage] for stage in counts}


# --- what is in the way ---------------------------------------------------------------------------


def require_current(steps: Sequence[Step]) -> None:
    """Refuse results that were made from something else.

    Raises
    ------
    StaleError
        It names all of them, what differs, and what making them anew takes.
    """
    stale = [step for step in steps if step.state == "stale"]
    if not stale:
        return
    lines = [f"  {step.name}: {_reasons(step)}" for step in stale[:_LISTED]]
    if len(stale) > _LISTED:
        lines.append(f"  and {len(stale) - _LISTED} more")
    raise StaleError(
        "\n".join(["these results of the run were made from other inputs or settings:", *lines]),
        expected="the inputs and settings that they were made from",
        fix="take the change back, give the run another name (--name), or have just these made "
        f"anew with --redo: {cost_of(stale)}",
    )


def cost_of(stale: Sequence[Step]) -> str:
    """What making results anew takes, in words."""
    parts = []
    if trained := [step for step in stale if step.stage == "train"]:
        took = sum(step.seconds for step in trained)
        parts.append(f"train {len(trained)} models ({took:,.0f} s the last time)")
    if exported := [step for step in stale if step.stage == "export"]:
        parts.append(f"export {len(exported)}")
    others = [step.name for step in stale if step.stage in STAGES]
    if others:
        parts.append(f"prepare {', '.join(others)}")
    why = [line for step in stale if step.stage == "search" for line in step.why]
    if why and not (trained or exported) and all(one.startswith("inference.beams") for one in why):
        parts.append("only the search is computed anew, not the candidates' losses")
    elif trained or exported or any(step.stage == "search" for step in stale):
        parts.append("search and score the shards that they lead to")
    return "; ".join(parts)


def _reasons(step: Step) -> str:
    more = len(step.why) - _REASONS
    return "; ".join([*step.why[:_REASONS], *([f"and {more} more"] if more > 0 else [])])


def remove_stale(steps: Sequence[Step], layout: RunLayout) -> None:
    """Remove results that were made from something else; a cube is revised shard by shard.

    With a tokeniser go the index and the spans that only it led to.
    """
    tokenizers = [step for step in steps if step.stage == "tokenizer" and step.state != "to do"]
    kept = {name_of_index(step.place) for step in tokenizers if step.state == "done"}
    for digest in {name_of_index(step.place) for step in tokenizers} - kept:
        for kind in names_in(layout.identifiers()):
            remove(layout.identifiers(kind, digest))
        for name in names_in(layout.spans()):
            if name.endswith(f"-{digest}"):
                remove(layout.spans(name))
    for step in steps:
        if step.state == "stale" and step.stage != "search":
            remove(step.place)
