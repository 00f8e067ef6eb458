"""Verification of a run directory: every file against the hash that vouches for it.

Artefacts against their records, models against their manifests, the cube's metadata and coordinates
against its seal, every chunk of every shard against its marker, and the markers against the cube's
digest. Chunks carry a crc32c besides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import zarr
from dask.system import cpu_count

from genret_dask.cube.open import WholeStore
from genret_dask.cube.schema import BASELINES, SEARCH
from genret_dask.cube.store import ROOT, digest_of, is_sharded, read_attributes, store_at
from genret_dask.errors import CubeError, GenretError, InputError
from genret_dask.identifiers.ngrams import INDEX
from genret_dask.models.manifest import MANIFEST, read_manifest
from genret_dask.run.carried import CARRIED, FACTS, check_carried
from genret_dask.run.spec import is_run, read_run_spec
from genret_dask.shards.ledger import Ledger
from genret_dask.shards.plan import ShardTask, plan_shards
from genret_dask.storage import artefacts
from genret_dask.storage.artefacts import check_hash
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import PARTIAL, files_in, is_local, place_of
from genret_dask.storage.records import read_record
from genret_dask.storage.sources import paths_in, recheck

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """Something in a run directory that is not what it should be.

    Attributes
    ----------
    kind : {"artefact", "seal", "shard", "leftover", "source"}
        A folder that its record does not describe; metadata or coordinates of the cube; a shard
        whose chunks its marker does not describe; what a writer left that died; and a file that
        the host's memory of hashes had wrong: the next sweep sees it as it is.
    place : str
        Within the run directory: a folder, a shard's marker, a file; a source's path.
    found : str
    shard : ShardTask, optional
    """

    kind: str
    place: str
    found: str
    shard: ShardTask | None = None

    def __str__(self) -> str:
        return f"{self.kind:<9} {self.place}: {self.found}"


def verify_run(
    run: Path | str, progress: Callable[[float, float], None] | None = None
) -> list[Damage]:
    """Check everything in a run directory that a hash vouches for.

    Shards are checked where the metadata that they are read by is not damaged.

    Parameters
    ----------
    run : path or URL
    progress : callable, optional
        Gets how many artefacts and shards were checked, and how many there are.

    Returns
    -------
    list of Damage
        Empty where all is well. A shard without a marker is not damaged, but not done.

    Raises
    ------
    InputError
        There is no such run directory, or nothing in it.
    """
    run = place_of(run)
    names = files_in(run)
    if not names:
        raise InputError(f"there is nothing at {run}", expected="a run directory, as runs/pydoc")
    found = [
        Damage("leftover", name, "was being written when its writer died")
        for name in dict.fromkeys(map(_leftover, names))
        if name is not None
    ]
    checks = [
        *_artefact_checks(run, names),
        *_cube_checks(run, names),
        partial(_check_sources, run),
    ]
    with ThreadPoolExecutor(cpu_count()) as pool:
        for done, damages in enumerate(pool.map(lambda check: check(), checks), 1):
            found += damages
            if progress:
                progress(done, len(checks))
    return found


Check = Callable[[], list[Damage]]


def _leftover(name: str) -> str | None:
    """The outermost unfinished file or folder that a name lies in, if any."""
    parts = name.split("/")
    for depth, part in enumerate(parts, 1):
        if part.endswith(PARTIAL):
            return "/".join(parts[:depth])
    return None


# --- artefacts ------------------------------------------------------------------------------------


def _artefact_checks(run: Path, names: list[str]) -> Iterator[Check]:
    how = {
        artefacts.RECORD: artefacts.verify,
        MANIFEST: _check_model,
        INDEX: _check_index,
        FACTS: check_carried,
    }
    layout = RunLayout(run)  # what is checked shard by shard is no artefact
    by_shard = (f"{layout.cube.name}/", f"{layout.markers.name}/")
    seen = set[tuple[int, int]]()
    for name in sorted(names, key=lambda name: f"/{CARRIED}/" in name):
        folder, _, record = name.rpartition("/")
        ours = folder and record in how and not name.startswith(by_shard)
        if ours and _leftover(name) is None and not _is_linked(run / name, seen):
            yield partial(_damages, "artefact", folder, how[record], run / folder)


def _is_linked(record: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a file is one that was seen, by another name: a model carries links."""
    try:
        found = record.stat() if is_local(record) else None
    except FileNotFoundError:
        found = None
    if found is None:
        return False
    file = (found.st_dev, found.st_ino)
    if file in seen:
        return True
    seen.add(file)
    return False


def _damages(kind: str, place: str, check: Callable[..., object], *what: Any) -> list[Damage]:
    """Call a check; where it raises, say so of the place."""
    try:
        check(*what)
    except GenretError as error:
        return [Damage(kind, place, error.found)]
    return []


def _check_model(folder: Path) -> None:
    manifest = read_manifest(folder, verify=False)
    for name, digest in manifest.files.items():
        check_hash(folder / name, digest)


def _check_index(folder: Path) -> None:
    for name, digest in artefacts.record_of(folder, INDEX, {"parts": dict})["parts"].items():
        check_hash(folder / name / artefacts.RECORD, digest)


def _check_sources(run: Path) -> list[Damage]:
    """Compare the study's own files with the hashes that this host remembers."""
    if not is_run(run):
        return []
    found = "has other bytes than before, though its size and time are the same"
    return [Damage("source", str(path), found) for path in recheck(paths_in(read_run_spec(run)))]


# --- the cube -------------------------------------------------------------------------------------


def _cube_checks(run: Path, names: list[str]) -> list[Check]:
    layout = RunLayout(run)
    cube, markers = layout.cube, layout.markers.name
    if f"{cube.name}/{ROOT}" not in names:
        return []
    try:
        attributes = read_attributes(cube)
        ledger = Ledger(layout.markers)
        shards = shards_of(cube)
    except (GenretError, KeyError, ValueError) as error:
        found = error.found if isinstance(error, GenretError) else f"{type(error).__name__} {error}"
        return [lambda: [Damage("seal", cube.name, found)]]
    there = {name for name in names if name.startswith(f"{markers}/")}
    checks: list[Check] = []
    if attributes.get("sealed"):
        damages = _check_seal(cube, attributes, ledger, shards)
        checks.append(partial(list, damages))
        if any(damage.place.endswith(ROOT) for damage in damages):
            return checks  # without metadata that can be trusted, no shard can be read
    for shard in shards:
        marker = f"{markers}/{ledger.path(shard).name}"
        if marker in there:
            checks.append(partial(_check_shard, cube, ledger, shard, marker))
        elif attributes.get("sealed"):
            lost = Damage("shard", marker, "is missing, though the cube is sealed", shard)
            checks.append(partial(list, [lost]))
    return checks


def shards_of(cube: Path) -> list[ShardTask]:
    """The shards of a cube, read off the cube itself."""
    root: Any = zarr.open_group(store_at(cube, read_only=True), mode="r")
    found = []
    # In the order of the study, in which the seal has them.
    entries = root.attrs.get("spec", {}).get("identifiers", ())
    kinds = [one.get("name") or one["kind"] for one in entries]
    for kind in kinds or sorted({*root.group_keys()} - {BASELINES}):
        group = root[f"{kind}/{SEARCH}"]
        array = next(one for _, one in group.arrays() if is_sharded(one))
        models = [str(name) for name in group["model"][:]]
        found += plan_shards(kind, models, array.shape[1], array.chunks[1])
    return found


def _check_seal(
    cube: Path, attributes: dict[str, Any], ledger: Ledger, shards: list[ShardTask]
) -> list[Damage]:
    place, found = RunLayout(cube.parent).seal, []
    try:
        seal = read_record(place)
    except GenretError as error:
        return [Damage("seal", place.name, error.found)]
    if seal is None:
        return [Damage("seal", place.name, "is missing, though the cube is sealed")]
    for name, digest in seal["files"].items():
        found += _damages("seal", f"{cube.name}/{name}", check_hash, cube / name, digest)
    if attributes.get("digest") != seal["digest"]:
        found.append(Damage("seal", cube.name, "carries another digest than its seal"))
    with suppress(CubeError):  # a marker is missing or damaged: its shard says so itself
        if ledger.digest(shards) != seal["digest"]:
            found.append(Damage("seal", place.name, "has another digest than the markers"))
    return found


def _check_shard(cube: Path, ledger: Ledger, shard: ShardTask, place: str) -> list[Damage]:
    marker = ledger.read(shard)
    if marker is None:
        return [Damage("shard", place, "the marker is damaged", shard)]
    root: Any = zarr.open_group(
        WholeStore(store_at(cube, read_only=True)), mode="r", use_consolidated=False
    )
    for name, digest in marker["sha256"].items():
        try:
            array = root[f"{shard.kind}/{name}"]
            values = array[shard.model, shard.start : shard.stop]
        except Exception as error:  # a codec's own error: crc32c, zstd, or what metadata says
            reason = error.found if isinstance(error, GenretError) else error
            return [Damage("shard", place, f"{name} cannot be read: {reason}", shard)]
        if digest_of(values) != digest:
            return [Damage("shard", place, f"{name} is not what the marker says", shard)]
    return []
